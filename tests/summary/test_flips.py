import itertools

import numpy as np
import pytest

from brinell.core.component import parse
from brinell.core.confidence import clopper_pearson
from brinell.core.errors import UndefinedReading
from brinell.core.network import NetReference
from brinell.summary.flips import FlipProbability, flip_probability, new_ranks, top5_distance
from ladders import corruption, graded_table, read


def test_flips_against_a_loop():
    frames = np.random.default_rng(0).integers(0, 3, (20, 7))
    first = [row[j] != row[0] for row in frames for j in range(1, 7)]
    previous = [row[j] != row[j - 1] for row in frames for j in range(1, 7)]
    assert flip_probability(frames) == pytest.approx(np.mean(first))
    assert flip_probability(frames, "previous") == pytest.approx(np.mean(previous))
    assert flip_probability(np.zeros((3, 2))) == 0.0
    assert flip_probability([[0, 1], [0, 0]]) == 0.5


@pytest.mark.parametrize(("predictions", "reference"), [
    ([1, 2], "first"), ([[1], [2]], "first"), (np.zeros((0, 3)), "first"), ([[1, 2]], "last"),
])  # fmt: skip
def test_flips_refuse(predictions, reference):
    with pytest.raises(UndefinedReading, match="flips"):
        flip_probability(predictions, reference)


def rotated(*start):
    return [*start, *range(len(start) + 1, 11)]


@pytest.mark.parametrize(("sigma", "distance"), [
    (rotated(1, 2, 3, 4, 5), 0), (rotated(2, 1, 3, 4, 5), 2), (rotated(3, 1, 2, 4, 5), 4), ([2, 3, 4, 5, 6, 7, 8, 9, 10, 1], 5),
    (rotated(5, 4, 3, 2, 1), 12), ([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 15), (rotated(1, 2, 3, 4, 5, 7, 6), 0), ([1, 2, 3, 4, 5], 0),
])  # fmt: skip
def test_published_top5_distances(sigma, distance):
    assert top5_distance(sigma) == distance


def double_sum(sigma):
    """The definition, with its two sums."""
    return sum(
        1 <= j - 1 <= 5 for i in range(1, 6) for j in range(min(i, sigma[i - 1]) + 1, max(i, sigma[i - 1]) + 1)
    )  # fmt: skip


def test_top5_distance_is_the_double_sum_for_every_permutation_of_seven():
    every = np.array(list(itertools.permutations(range(1, 8))))
    assert top5_distance(every).tolist() == [double_sum(sigma) for sigma in every]


@pytest.mark.parametrize("sigma", [[1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 1, 2, 3, 4], 5])
def test_top5_distance_needs_permutations(sigma):
    with pytest.raises(UndefinedReading, match="permutations of the ranks"):
        top5_distance(sigma)


def test_new_ranks_against_a_loop():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(4, 9)), rng.normal(size=(4, 9))
    got = new_ranks(before, after)
    for row in range(4):
        for i in range(1, 10):
            (owner,) = (k for k in range(9) if 1 + (before[row] > before[row, k]).sum() == i)
            assert got[row, i - 1] == 1 + (after[row] > after[row, owner]).sum()
    assert new_ranks(before, before).tolist() == [list(range(1, 10))] * 4
    assert new_ranks([1, 1, 0], [0, 1, 1]).tolist() == [3, 1, 2]  # equal logits rank by class number


def cells(**predictions):
    ladder = {corruption("fog", s): predictions[f"fog{s}"] for s in (1, 2, 3) if f"fog{s}" in predictions}
    ladder |= {corruption("saturate", s, main=False): predictions[f"saturate{s}"] for s in (1,) if f"saturate{s}" in predictions}
    ladder |= {corruption("snow", s): predictions[f"snow{s}"] for s in (1, 2, 3) if f"snow{s}" in predictions}
    return {"clean": predictions["clean"], **ladder}


SEQUENCES = {
    "clean": [0, 0, 0, 0],
    "fog1": [0, 1, 0, 0],
    "fog2": [0, 0, 1, 0],
    "fog3": [0, 0, 0, 2],
    "snow1": [0, 0, 0, 1],
    "saturate1": [1, 1, 1, 1],
}


def table(net="net", **changes):
    found = {**SEQUENCES, **changes}
    return graded_table(
        {
            net: cells(
                **{name: given if isinstance(given, dict | None) else {"prediction": np.array(given)} for name, given in found.items()}
            )
        }
    )


@pytest.mark.parametrize(("reference", "fog"), [("first", 3 / 12), ("previous", 5 / 12)])
def test_sequences_of_growing_severity(reference, fog):
    got = read(FlipProbability(reference=reference, resamples=200), table())
    reading = got["net", "flip_probability", "fog"]
    assert reading.value == pytest.approx(fog)
    assert reading.low <= reading.value <= reading.high
    assert reading.reason.startswith("sequence: clean, severity 1, 2, 3")
    assert got["net", "flip_probability", "snow"].value == 0.25
    saturate = got["net", "flip_probability", "saturate"]
    assert (saturate.value, saturate.low, saturate.high) == (1.0, *clopper_pearson(4, 4))
    assert got["net", "mean_flip_probability", ""].value == pytest.approx((fog + 0.25) / 2)  # saturate is meant for validation


def test_the_order_of_the_plan_does_not_matter():
    first = SEQUENCES
    mixed = {"clean": first["clean"], **{corruption("fog", s): first[f"fog{s}"] for s in (3, 1, 2)}}
    got = read(
        FlipProbability(reference="previous", resamples=200),
        graded_table({"net": {k: {"prediction": np.array(v)} for k, v in mixed.items()}}),
    )
    assert got["net", "flip_probability", "fog"].value == pytest.approx(5 / 12)
    assert flip_probability(np.stack([first["clean"], first["fog1"], first["fog2"], first["fog3"]], 1), "previous") == pytest.approx(5 / 12)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"fog2": None}, "a cell of fog failed"), ({"clean": None}, "the clean samples were not measured"),
    ({"fog2": {"prediction": np.zeros(4, int), "finite": np.array([1, 1, 0, 1], bool)}},
     "some samples have NaN or inf among their logits under fog"),
])  # fmt: skip
def test_sequences_that_are_not_whole(changes, reason):
    got = read(FlipProbability(resamples=200), table(**changes))
    assert got["net", "flip_probability", "fog"].reason.startswith(reason)
    assert got["net", "mean_flip_probability", ""].reason.startswith(reason)
    if "clean" not in changes:
        assert got["net", "flip_probability", "snow"].value == 0.25


def two(**changes):
    """`ref` flips as above; `net` has other predictions under fog."""
    ours = {**SEQUENCES, "fog1": [1, 1, 0, 0], "fog2": [1, 1, 1, 0], "fog3": [0, 0, 1, 2], **changes}
    return graded_table(
        {
            net: cells(**{name: None if given is None else {"prediction": np.array(given)} for name, given in found.items()})
            for net, found in (("ref", SEQUENCES), ("net", ours))
        }
    )


def test_flip_rates_are_relative_to_a_network_of_the_run():
    summary = FlipProbability(relative_to=NetReference(label="ref"), resamples=200)
    assert parse(summary.spec()) == summary
    got = read(summary, two())
    assert {got["ref", "flip_rate", kind].value for kind in ("fog", "snow", "saturate")} == {100.0}
    assert got["ref", "mean_flip_rate", ""].value == 100.0
    assert got["net", "flip_rate", "fog"].value == pytest.approx(100 * 7 / 3)
    assert got["net", "flip_rate", "snow"].value == 100
    assert got["net", "mean_flip_rate", ""].value == pytest.approx((700 / 3 + 100) / 2)
    assert not any(name.endswith("rate") for _, name, _ in read(FlipProbability(resamples=200), two()))


def test_flip_rates_have_intervals_that_resample_whole_sequences():
    rng = np.random.default_rng(0)
    ref, net = ({"clean": np.zeros(400, int), corruption("fog", 1): rng.random(400) < share} for share in (0.3, 0.6))
    nets = {
        name: {item: {"prediction": np.asarray(given, int)} for item, given in found.items()}
        for name, found in (("ref", ref), ("net", net))
    }
    got = read(FlipProbability(relative_to=NetReference(label="ref")), graded_table(nets))["net", "flip_rate", "fog"]
    a, b = (found[next(item for item in found if item != "clean")] for found in (net, ref))
    again = [(a[rows].mean() / b[rows].mean()) * 100 for rows in rng.integers(0, 400, (4000, 400))]
    assert got.value == pytest.approx(100 * a.mean() / b.mean())
    assert (got.low, got.high) == (pytest.approx(np.quantile(again, 0.025), rel=0.05), pytest.approx(np.quantile(again, 0.975), rel=0.05))


@pytest.mark.parametrize(("changes", "label", "layer", "reason"), [
    ({}, "other", "fog", "no network of this run is called 'other' (they are ref, net)"),
    ({"fog2": None}, "ref", "fog", "a cell of fog failed"),
    ({}, "net", "snow", "net never changes an answer there"),
])  # fmt: skip
def test_flip_rates_that_do_not_exist(changes, label, layer, reason):
    still = {"snow1": [0, 0, 0, 0]} if label == "net" else {}
    got = read(FlipProbability(relative_to=NetReference(label=label), resamples=200), two(**changes, **still))
    who = "ref" if label == "net" else "net"
    assert got[who, "flip_rate", layer].reason == got[who, "mean_flip_rate", ""].reason == reason


def test_no_sequence_at_all():
    got = read(FlipProbability(), graded_table({"net": {"clean": 0.1}}))
    assert got["net", "mean_flip_probability", ""].reason == "no graded corruption was measured"
