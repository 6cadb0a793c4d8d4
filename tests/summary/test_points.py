"""Which point lies in which ball: containment against random points, distances against the lab's own test."""

import itertools

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.threat import Ball
from brinell.summary.points import Room, balls, cells, certifiers, covers

NORMS = (1, 2, float("inf"))
PAIRS = list(itertools.product(NORMS, NORMS))


@pytest.mark.parametrize("outer, inner", PAIRS)
@pytest.mark.parametrize("entries", [1, 7])
def test_covering_is_exactly_as_large_as_it_must_be(outer, inner, entries):
    """The farthest point of the inner ball, in the outer norm: a corner of an Linf ball, a tip of an L1 ball, the diagonal."""
    if inner == float("inf"):
        farthest = np.ones(entries)
    elif outer < inner:  # L2 measured in L1: the diagonal of the sphere
        farthest = np.full(entries, entries**-0.5)
    else:
        farthest = np.eye(entries)[0]
    reach = np.linalg.norm(farthest, outer)
    unbounded = {"low": -10, "high": 10}
    assert covers(Ball(norm=outer, eps=reach * 1.001, **unbounded), Ball(norm=inner, eps=1, **unbounded), entries)
    assert not covers(Ball(norm=outer, eps=reach * 0.999, **unbounded), Ball(norm=inner, eps=1, **unbounded), entries)


@pytest.mark.parametrize("outer, inner", PAIRS)
def test_points_of_a_covered_ball_lie_in_the_covering_one(outer, inner):
    small, large = Ball(norm=inner, eps=0.1), Ball(norm=outer, eps=0.25)
    x = torch.full((50, 5), 0.5)
    points = small.sample(x, derive(0, ids=range(50)))
    if covers(large, small, 5):
        assert bool(large.contains(x, points).all())
    else:
        assert outer < inner  # of equal norms, or a larger one outside, 0.1 < 0.25 is enough


def test_a_ball_that_reaches_less_of_the_domain_covers_nothing_larger():
    assert not covers(Ball(eps=0.2, low=0.1), Ball(eps=0.1), 4)
    assert covers(Ball(eps=0.2, low=-1, high=2), Ball(eps=0.1), 4)


def test_a_distance_counts_up_to_the_slack_of_the_ball(make_table):
    ball = Ball(eps=0.1)
    slack = ball.slack(torch.zeros(1, 4))
    distance = [0.0, 0.1, 0.1 + 0.9 * slack, 0.1 + 1.1 * slack, 1.0]
    table = make_table({"brightness": {"correct": [1] * 5, "linf": distance}})
    (cell,) = cells(table, "net")
    assert Room(table).inside(cell, ball).tolist() == [True, True, True, False, False]


def test_points_the_lab_has_checked_need_no_distance(make_table):
    table = make_table({"fgsm(threat=ball(eps=0.1))": {"correct": [1], "linf": [0.1001]}})
    (cell,) = cells(table, "net")
    room = Room(table)
    assert room.inside(cell, Ball(eps=0.1)).all() and room.inside(cell, Ball(eps=0.2)).all()
    assert not room.inside(cell, Ball(eps=0.05)).any()


def test_a_ball_narrower_than_the_domain_takes_its_own_points_only(make_table):
    own = "fgsm(threat=ball(eps=0.1, high=0.5))"
    table = make_table({"clean": {"correct": [1]}, own: {"correct": [1], "linf": [0.05]}})
    clean, attacked = cells(table, "net")
    narrow = Ball(eps=0.1, high=0.5)
    assert Room(table).inside(attacked, narrow).all() and not Room(table).inside(clean, narrow).any()
    wide = Ball(eps=0.1, low=-1, high=1.5)
    assert Room(table).inside(attacked, wide).all() and Room(table).inside(clean, wide).all()


def test_failed_cells_have_no_points_and_balls_count_once(make_table):
    table = make_table(
        {"clean": {"correct": [1]}, "fgsm(threat=ball(eps=0.1))": "it raised", "pgd(threat=ball(eps=0.1))": {"correct": [0]}},
        certificates={Ball(eps=0.1): [0], Ball(norm=2, eps=0.1): [0]},
    )
    assert [cell.perturbation.name for cell in cells(table, "net")] == ["clean", "pgd"]
    assert balls([*table.perturbations(), *certifiers(table)]) == [Ball(eps=0.1), Ball(norm=2, eps=0.1)]
    assert Room(table).survived([], Ball()) is None
