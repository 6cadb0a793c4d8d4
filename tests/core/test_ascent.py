"""The drive of iterative attacks: who is asked, for how long, and which point is returned."""

import pytest
import torch

from brinell.core.ascent import Front, ascend
from brinell.core.draws import derive
from brinell.core.goal import Maximise, Misclassify

N = 6
X = torch.arange(1.0, N + 1).reshape(N, 1) / 10  # sample i lies at (i + 1) / 10
Y = torch.zeros(N, dtype=torch.int64)


class Wall:
    """Class 1 beyond `at`; remembers the batches it has seen."""

    def __init__(self, at: float = 0.65) -> None:
        self.at = at
        self.batches: list[tuple[list[float], bool]] = []

    def __call__(self, z):
        self.batches.append(([round(value, 4) for value in z.detach().flatten().tolist()], z.requires_grad))
        return torch.cat((torch.zeros_like(z), z - self.at), 1)


def drive(net, x=X, y=Y, goal=None, steps=3, **changes):
    with torch.no_grad():
        clean = net(x)
    arguments = {
        "start": lambda front: front.x.clone(),
        "step": lambda front, gradient: front.z + 0.1 * gradient.sign(),
        "done": lambda front: front.step >= steps,
        "draws": derive(0, ids=range(len(x))),
        **changes,
    }
    return ascend(net, x, y, clean, goal or Misclassify(), **arguments)


def test_only_live_samples_are_passed():
    net = Wall()
    found = drive(net, steps=2)
    start, after_one = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [batch for batch, _ in net.batches] == [start, start, after_one, [0.3, 0.4, 0.5, 0.6, 0.7]]  # the last one has left
    assert found.steps.tolist() == [2, 2, 2, 2, 2, 1]


def test_who_has_arrived_and_where():
    found = drive(Wall(), steps=3)
    assert found.reached.tolist() == [False, False, False, True, True, True]
    assert found.z.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.7, 0.7])
    assert found.steps.tolist() == [3, 3, 3, 3, 2, 1]


def test_the_last_look_needs_no_gradient():
    net = Wall(at=9.0)
    drive(net, steps=2)
    assert [grad for _, grad in net.batches] == [False, True, True, False]


def test_samples_that_have_arrived_before_the_start_stay_where_they_are():
    net = Wall(at=0.34)
    found = drive(net, steps=2, start=lambda front: front.x - 0.05)
    assert found.reached.tolist() == [False, True, True, True, True, True]
    assert torch.equal(found.z[3:], X[3:]) and found.steps[3:].tolist() == [0, 0, 0]
    assert [len(batch) for batch, _ in net.batches] == [6, 3, 3, 2]
    net = Wall(at=-1.0)
    assert torch.equal(drive(net).z, X) and len(net.batches) == 1


def test_the_best_point_is_returned_not_the_last():
    """Every step overshoots: the loss is largest at the start, then it falls."""
    found = drive(Wall(9.0), goal=Maximise(quantity="margin"), step=lambda front, g: front.z - 0.1, steps=4)
    assert torch.equal(found.z, X) and found.steps.tolist() == [4] * N
    assert found.loss.tolist() == pytest.approx((X.flatten().double() - 9).tolist())


def test_each_sample_has_its_own_budget_and_state():
    def start(front: Front):
        front.carry["left"] = torch.arange(1, len(front) + 1)
        front.carry["size"] = front.x.clone()
        return front.x.clone()

    def step(front: Front, gradient):
        assert len(gradient) == len(front) == len(front.carry["left"]) == len(front.draws) == len(front.clean)
        assert torch.equal(front.carry["size"], front.x)  # rows stay together when others leave
        return front.z + 0.01

    found = drive(Wall(9.0), start=start, step=step, done=lambda front: front.step >= front.carry["left"])
    assert found.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.z.flatten().tolist() == pytest.approx([0.11, 0.22, 0.33, 0.44, 0.55, 0.66])


def test_a_sample_takes_at_least_one_step():
    assert drive(Wall(9.0), done=lambda front: torch.ones(len(front), dtype=torch.bool)).steps.tolist() == [1] * N


def test_rows_do_not_depend_on_their_batch_mates():
    def start(front: Front):
        return front.x + 0.05 * front.draws.uniform(1)

    def step(front: Front, gradient):
        return front.z + 0.05 * front.draws.uniform(1) * gradient.sign()

    together = drive(Wall(), start=start, step=step, steps=5)
    assert 0 < together.reached.sum() < N
    for row in range(N):
        alone = drive(Wall(), X[row : row + 1], Y[row : row + 1], start=start, step=step, steps=5, draws=derive(0, ids=[row]))
        assert torch.equal(alone.z[0], together.z[row]) and alone.steps[0] == together.steps[row]


def test_of_runs_side_by_side_the_earlier_ones_come_first():
    """Three runs of the samples at 0.1 and 0.4, each with its own step: a run ends where one before it has arrived."""
    for sizes, reached, steps in (
        ((0.05, 0.1, 0.3), [False, False, False, True, True, True], [3, 3, 3, 3, 2, 1]),
        ((0.05, 0.3, 0.1), [False, False, True, True, False, False], [3, 3, 2, 1, 2, 1]),
    ):
        net, x = Wall(), torch.tensor([[0.1], [0.4]])
        size = torch.tensor(sizes).repeat_interleave(2)

        def start(front: Front, size=size):
            front.carry["size"] = size[front.rows, None]
            return front.x.clone()

        found = drive(
            net, x.repeat(3, 1), Y, start=start, step=lambda front, g: front.z + front.carry["size"] * g.sign(), runs=3,
        )  # fmt: skip
        assert found.reached.tolist() == reached and found.steps.tolist() == steps
        assert sum(len(batch) for batch, _ in net.batches[1:]) == found.forwards.sum()
        total, parts = int(found.forwards.sum()), found.split(2)
        assert [part.steps.tolist() for part in parts] == [steps[:2], steps[2:4], steps[4:]]
        best = parts[0]
        for part in parts[1:]:
            best.improve(torch.tensor([True, True]), part)
        assert best.reached.tolist() == [True, True] and best.forwards.sum() == total
        assert best.z.flatten().tolist() == pytest.approx([0.7, 0.7])


def test_losses_that_are_no_numbers_never_win():
    def net(z):
        logits = torch.cat((torch.zeros_like(z), z - 9), 1)
        return torch.where(z > 0.45, torch.nan, logits)

    found = drive(net, X[:3], Y[:3], goal=Maximise(quantity="margin"), steps=3)
    assert found.z.flatten().tolist() == pytest.approx([0.4, 0.4, 0.4]) and torch.isfinite(found.loss).all()


def test_the_inputs_are_untouched():
    x, y = X.clone(), Y.clone()
    found = drive(Wall(), x, y)
    found.z.zero_()
    assert torch.equal(x, X) and torch.equal(y, Y)
