"""Eight bits: wrong points that an image file can hold, and such that it cannot."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.draws import derive
from brinell.core.network import Counted
from brinell.core.probe import View
from brinell.core.threat import Ball
from brinell.probe.eight_bit import EightBit, rounded


class Sum(nn.Module):
    """Class 1 where the sum of the entries exceeds a threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        lead = x.double().flatten(1).sum(1) - self.threshold
        return torch.stack((-lead, lead), 1)


def read(x, z, net, ball, y=None):
    net = Counted(net)
    with torch.no_grad():
        logits = net(z)
    net.reset()
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    view = View(x, z, y, torch.arange(len(x)), logits, net=net, threat=ball)
    readings = EightBit().read(EightBit().observe(view, draws=derive(0, ids=range(len(x)))))
    return readings[0] if readings else None, net.reset()[0]


def levels(*values):
    return torch.tensor(values, dtype=torch.float64).div(255).float()


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_against_whole_numbers(low, high, dtype):
    k = derive(0, "k", ids=range(30)).integers(0, 256, 11).numpy()
    moved = derive(0, "moved", ids=range(30)).uniform(11, low=-9, high=9, dtype=torch.float64).numpy()
    place = np.clip(k + moved, 0, 255)
    to_points = lambda values: torch.from_numpy(low + values * (high - low) / 255).to(dtype)  # noqa: E731
    nearest, inward = rounded(to_points(k.astype(float)), to_points(place), Ball(low=low, high=high))
    towards = np.where(place > k, np.floor(place), np.ceil(place))
    for found, expected in ((nearest, np.round(place)), (inward, towards)):
        assert np.abs((found.double().numpy() - low) / (high - low) * 255 - expected).max() < 1e-3
        assert float(found.min()) >= low and float(found.max()) <= high


def test_a_success_between_two_levels_is_lost_and_one_beyond_is_kept():
    """x = 100; the first point is 102.4 and wrong above 102.2: 102 is right. The second is wrong above 101.8: 102 is wrong."""
    x, z = levels([100.0], [100.0]), levels([102.4], [102.4])
    ball = Ball(eps=8 / 255)
    assert read(x, z, Sum(102.2 / 255), ball)[0].value == 1.0
    assert read(x, z, Sum(101.8 / 255), ball)[0].value == 0.0


def test_where_the_nearest_level_leaves_the_ball_the_inner_one_is_tried():
    """eps is 2.6 levels: 103 lies outside, 102 inside."""
    x, z, ball = levels([100.0]), levels([102.6]), Ball(eps=2.6 / 255)
    assert read(x, z, Sum(101.5 / 255), ball)[0].value == 0.0
    assert read(x, z, Sum(102.3 / 255), ball)[0].value == 1.0


def test_passes_are_spent_on_wrong_points_alone():
    x = levels([100.0], [100.0], [100.0], [200.0])
    z = levels([102.4], [102.9], [100.5], [200.0])  # wrong and lost, wrong and kept, right, wrong without being moved
    reading, passes = read(x, z, Sum(102.2 / 255), Ball(eps=8 / 255))
    assert (reading.value, reading.n, passes) == (0.5, 2, 3)


def test_data_between_the_levels_are_no_pixels():
    x, z = levels([100.3], [100.0]), levels([120.0], [120.0])
    reading, _ = read(x, z, Sum(110 / 255), Ball(eps=0.5))
    assert reading.value is None and "1 of 2 samples" in reading.reason
    assert read(x, x + 0.1, Sum(9.0), Ball(eps=0.5))[0].status == "undefined"


def test_in_a_lab_cells_without_a_ball_stay_silent_and_none_fails():
    x, y = derive(0, "x", ids=range(30)).integers(0, 256, 1, 4, 4).float() / 255, torch.arange(30) % 2
    net = br.load_network("mlp(widths=(8,))", shape=(1, 4, 4), classes=2)
    attack = br.parse("pgd(steps=5, threat=ball(eps=0.2))")
    table = br.Lab(batch_size=7).measure(net, (x, y), [attack, "brightness(severity=1)", "fmn(steps=5)"], ["accuracy", "eight_bit"])
    found = {row["perturbation"]: row for row in table.rows if row["probe"] == "eight_bit"}
    assert {row["status"] for row in found.values()} == {"ok"} and set(found) == {attack.spec(), br.parse("fmn(steps=5)").spec()}
    samples = table.samples("net", attack)
    assert found[attack.spec()]["n"] == int((~samples["correct"] & (samples["linf"] > 0)).sum())


def test_nothing_is_said_without_a_ball_or_an_end_or_a_change():
    x, z = levels([100.0]), levels([120.0])
    assert read(x, z, Sum(0.4), None)[0] is None
    assert read(x, z, Sum(0.4), Ball(eps=0.5, low=-math.inf, high=math.inf))[0] is None
    assert read(x, x, Sum(0.4), Ball())[0] is None
    reading, passes = read(x, z, Sum(0.9), Ball(eps=0.5))
    assert reading.reason == "no sample was moved to a wrong answer" and passes == 0
