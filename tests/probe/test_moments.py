"""Moments of shards: numpy's of all points, for clouds side by side as for one alone, and refused where there is no sum."""

import numpy as np
import pytest
import torch

from brinell.core.tally import unpack
from brinell.probe.layers import units_of, widths_of
from brinell.probe.moments import BlockMoments, Moments, covariance_of

WIDTHS = [3, 1, 5]


def shards(offset: float) -> tuple[np.ndarray, list[torch.Tensor]]:
    a = np.random.default_rng(0).normal(size=(60, sum(WIDTHS))) + offset
    return a, [torch.tensor(part) for part in np.array_split(a, [0, 1, 20])]


@pytest.mark.parametrize("offset", [0, 1e8])
def test_clouds_side_by_side_are_numpys_of_each(offset):
    a, parts = shards(offset)
    few = [BlockMoments.about(part, WIDTHS) for part in parts]
    total = (few[3] + few[1]) + (BlockMoments() + few[0]) + few[2]
    again = unpack(*total.pack())
    assert isinstance(again, BlockMoments)
    for cloud, found in zip(np.split(a, np.cumsum(WIDTHS)[:-1], axis=1), again.split(), strict=True):
        assert int(found["count"]) == 60 and found["mean"].numpy() == pytest.approx(cloud.mean(0), rel=1e-12)
        assert covariance_of(found).numpy() == pytest.approx(np.cov(cloud.T, bias=True).reshape(found["scatter"].shape), abs=1e-6)


def test_one_cloud_is_its_moments():
    _, parts = shards(0)
    block, plain = BlockMoments.about(parts[3]), Moments.about(parts[3])
    assert all(torch.equal(block.split()[0][name], plain[name]) for name in ("count", "mean", "scatter"))


def test_a_sum_leaves_its_parts_as_they_were():
    _, parts = shards(0)
    one, other = BlockMoments.about(parts[2], WIDTHS), BlockMoments.about(parts[3], WIDTHS)
    before = [value.clone() for tally in (one, other) for value in tally.values.values()]
    _ = one + other
    assert all(torch.equal(was, now) for was, now in zip(before, [*one.values.values(), *other.values.values()], strict=True))


def test_other_widths_have_no_sum():
    points = torch.rand(4, 9)
    with pytest.raises(TypeError, match=r"widths \[4, 5\] and \[5, 4\] have no sum"):
        _ = BlockMoments.about(points, [4, 5]) + BlockMoments.about(points, [5, 4])
    with pytest.raises(TypeError, match="have no sum"):
        _ = Moments.about(points) + Moments.about(points[:, :3])


def test_units_stand_in_the_order_of_the_pass():
    widths = widths_of({"z:0": torch.ones(2, 7), "b:0": torch.ones(2, 1), "a:1": torch.ones(2, 4)})
    stored = unpack("max", dict(sorted((widths + widths).values.items())))
    assert list(units_of(stored).items()) == [("z:0", slice(0, 7)), ("b:0", slice(7, 8)), ("a:1", slice(8, 12))]
