import numpy as np
import pytest

from brinell.core.component import parse
from brinell.core.errors import SpecError, UndefinedReading
from brinell.core.measurement import Status
from brinell.core.network import NetReference
from brinell.perturb.frost import Frost
from brinell.perturb.noise import GaussianNoise
from brinell.summary.graded import SEVERITIES, TYPES
from brinell.summary.mce import ALEXNET, ALEXNET_CLEAN, MCE, corruption_errors, error_table
from ladders import corruption, flags, graded_table, read

FAST = MCE(resamples=200)
TO_REF = MCE(resamples=200, reference=NetReference(label="ref"))
PUBLISHED = (
    0.886428,
    0.894468,
    0.922640,
    0.819880,
    0.826268,
    0.785948,
    0.798360,
    0.866816,
    0.826572,
    0.819324,
    0.564592,
    0.853204,
    0.646056,
    0.717840,
    0.606500,
)


def full(error):
    return {corruption(kind, s): error(kind, s) for kind in TYPES for s in SEVERITIES}


def test_the_constants_agree_with_the_published_means_over_severities():
    assert tuple(ALEXNET) == TYPES
    for kind, mean in zip(TYPES, PUBLISHED, strict=True):
        assert np.mean(ALEXNET[kind]) == pytest.approx(mean, abs=5e-7)


def test_published_numbers_of_resnet_50():
    """Its published CE per type, mCE 76.7 and relative mCE 105.0 follow from one another through the constants, but for rounding."""
    ce = np.array([80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77])
    errors = np.array([ALEXNET[kind] for kind in TYPES]) * ce[:, None] / 100
    assert corruption_errors(errors, list(ALEXNET.values())).mean() == pytest.approx(76.7, abs=0.3)
    relative = corruption_errors(errors, list(ALEXNET.values()), clean=0.239, reference_clean=ALEXNET_CLEAN)
    assert relative.mean() == pytest.approx(105.0, abs=1.5)


def test_the_function_by_hand():
    table = np.array(list(ALEXNET.values()))
    assert corruption_errors(table, table).tolist() == [100.0] * 15
    assert corruption_errors(table / 2, table).tolist() == [50.0] * 15
    assert corruption_errors(table, table, clean=0.435, reference_clean=0.435).tolist() == [100.0] * 15
    mine, theirs = [[0.2, 0.2, 0.3, 0.4, 0.4]], [[0.3, 0.3, 0.4, 0.5, 0.5]]
    assert corruption_errors(mine, theirs)[0] == pytest.approx(75)
    assert corruption_errors(mine, theirs, clean=0.1, reference_clean=0.3)[0] == pytest.approx(200)
    assert corruption_errors(mine, theirs, clean=0.4, reference_clean=0.3)[0] == pytest.approx(-100)


@pytest.mark.parametrize(("arguments", "message"), [
    (([[0.1] * 5], [[0.2] * 4]), "two tables"), (([0.1] * 5, [0.2] * 5), "two tables"), (([[0.1] * 4], [[0.2] * 4]), "two tables"),
    (([[10] * 5], [[20] * 5]), "divide percentages by 100"), (([[float("nan")] * 5], [[0.5] * 5]), "shares in"),
    (([[0.1] * 5], [[0.0] * 5]), "type 0: the reference's mean error is 0, below smallest=0.01"),
    (([[0.1] * 5] * 2, [[0.2] * 5, [0.005] * 5]), "type 1: the reference's mean error is 0.005"),
    (([[0.1] * 5], [[0.3] * 5], 0.1, 0.3), "error above its clean error is 0, below"),
    (([[0.1] * 5], [[0.3] * 5], 0.1), "only one is given"),
])  # fmt: skip
def test_the_function_refuses(arguments, message):
    with pytest.raises(UndefinedReading, match=message):
        corruption_errors(*arguments)


def test_the_reference_has_exactly_100():
    rng, items = np.random.default_rng(0), list(full(lambda kind, s: 0))
    ref = {"clean": rng.random(77) < 0.9, **{item: rng.random(77) < 0.6 for item in items}}
    other = {"clean": rng.random(77) < 0.9, **{item: rng.random(77) < 0.8 for item in items}}
    got = read(TO_REF, graded_table({"ref": ref, "other": other}))
    for name, mean in (("ce", "mce"), ("relative_ce", "relative_mce")):
        assert [got["ref", name, kind].value for kind in TYPES] == [100.0] * 15
        assert got["ref", mean, ""].value == 100.0
        assert 10 < got["other", mean, ""].value < 90
    assert got["other", "mce", ""].low < got["other", "mce", ""].value < got["other", "mce", ""].high
    assert "the samples do not vary" in got["ref", "mce", ""].reason  # 100 on every resample


def test_halved_errors_are_50_and_everything_else_by_hand():
    def error(kind, s):
        return 0.02 * TYPES.index(kind) + 0.1 * s

    nets = {"ref": {"clean": 0.08, **full(error)}, "half": {"clean": 0.04, **full(lambda kind, s: error(kind, s) / 2)},
            "shift": {"clean": 0.18, **full(lambda kind, s: error(kind, s) + 0.1)}}  # fmt: skip
    got = read(TO_REF, graded_table(nets))
    assert got["half", "mce", ""].value == pytest.approx(50)
    assert got["half", "relative_mce", ""].value == pytest.approx(50)
    assert got["shift", "relative_mce", ""].value == pytest.approx(100)  # as much beyond its own clean error as the reference
    expected = [100 * (0.02 * k + 0.3 + 0.1) / (0.02 * k + 0.3) for k in range(15)]
    assert [got["shift", "ce", kind].value for kind in TYPES] == pytest.approx(expected)
    assert got["shift", "mce", ""].value == pytest.approx(np.mean(expected))
    reading = got["shift", "mce", ""]
    assert reading.low < reading.value < reading.high
    assert reading.n == 100


def test_alexnet_is_the_reference_by_default():
    got = read(FAST, graded_table({"net": {"clean": 0.25, **full(lambda kind, s: 0.5)}}))
    expected = [100 * 0.5 / mean for mean in PUBLISHED]
    assert [got["net", "ce", kind].value for kind in TYPES] == pytest.approx(expected, rel=1e-5)
    assert got["net", "mce", ""].value == pytest.approx(np.mean(expected), rel=1e-5)
    assert got["net", "relative_ce", "brightness"].value == pytest.approx(100 * 0.25 / (0.564592 - 0.435), rel=1e-4)
    reading = got["net", "relative_mce", ""]
    assert reading.value == pytest.approx(np.mean([100 * 0.25 / (mean - 0.435) for mean in PUBLISHED]), rel=1e-4)
    assert reading.low < reading.value < reading.high


@pytest.mark.parametrize(("table", "reason"), [
    ({"classes": 10}, "the data have 10 classes, not 1000: AlexNet's errors are those on ImageNet-C; give reference=net(NAME)"),
    ({}, None),
])  # fmt: skip
def test_alexnet_needs_imagenet(table, reason):
    got = read(FAST, graded_table({"net": {"clean": 0.25, **full(lambda kind, s: 0.5)}}, **table))
    assert (got["net", "mce", ""].reason or None) == reason
    assert (got["net", "ce", "fog"].value is None) == (reason is not None)


@pytest.mark.parametrize(("shape", "fields", "reason"), [
    ((3, 32, 32), {}, "gaussian_noise has the parameters of cifar, not of imagenet: AlexNet's errors"),
    ((3, 64, 64), {}, "gaussian_noise has the parameters of tiny_imagenet, not of imagenet"),
    ((3, 224, 224), {"quantize": False}, "gaussian_noise is not rounded to 8 bits"),
    ((3, 224, 224), {}, None), ((3, 64, 64), {"preset": "imagenet"}, None),
])  # fmt: skip
def test_alexnet_needs_the_parameters_of_imagenet_c(shape, fields, reason):
    cells = {item: given for item, given in full(lambda kind, s: 0.5).items() if item.name != "gaussian_noise"}
    real = {GaussianNoise(severity=s, **fields): 0.5 for s in SEVERITIES}
    got = read(FAST, graded_table({"net": {"clean": 0.25, **cells, **real}}, shape=shape))["net", "mce", ""]
    assert (got.value is not None) if reason is None else got.reason.startswith(reason)


def test_a_reference_that_is_not_in_the_run():
    got = read(TO_REF, graded_table({"a": {"clean": 0.1, **full(lambda kind, s: 0.5)}}))
    assert got["a", "mce", ""].reason == "no network of this run is called 'ref' (they are a)"
    assert got["a", "ce", "fog"].status is Status.UNDEFINED


def test_five_severities_of_fifteen_types_or_none():
    cells = {
        item: 0.5
        for item in full(lambda kind, s: 0)
        if (item.name, item.severity) not in {("fog", 2), ("snow", 1)} and item.name != "frost"
    }
    got = read(FAST, graded_table({"net": {"clean": 0.1, **cells}}))
    assert got["net", "ce", "fog"].reason == "fog lacks severity 2"
    assert ("net", "ce", "frost") not in got
    for name in ("mce", "relative_mce"):
        assert got["net", name, ""].reason == "snow lacks severity 1; frost is not measured; fog lacks severity 2"
    assert got["net", "ce", "brightness"].value == pytest.approx(100 * 0.5 / 0.564592, rel=1e-5)


def test_failed_cells_of_the_network_or_of_the_reference():
    fog = corruption("fog", 3)
    good = {"clean": 0.1, **full(lambda kind, s: 0.5)}
    got = read(TO_REF, graded_table({"ref": {**good, fog: None}, "net": good}))
    assert got["net", "ce", "fog"].reason == got["ref", "ce", "fog"].reason == got["net", "mce", ""].reason == "fog failed at severity 3"
    assert got["net", "ce", "snow"].value == 100
    got = read(TO_REF, graded_table({"ref": {**good, "clean": None}, "net": good}))
    assert got["net", "mce", ""].value == 100
    assert got["net", "relative_ce", "fog"].reason == "the clean samples were not measured"
    assert got["net", "relative_mce", ""].status is Status.UNDEFINED


@pytest.mark.parametrize(("error", "shown"), [(0.1, "0"), (0.05, "-0.05")])
def test_a_reference_that_a_corruption_does_not_hurt(error, shown):
    """The ratio would be infinite, or have the wrong sign; it is undefined, and so is the mean."""
    ref = {"clean": 0.1, **full(lambda kind, s: error if kind == "brightness" else 0.5)}
    got = read(TO_REF, graded_table({"ref": ref, "net": {"clean": 0.1, **full(lambda kind, s: 0.4)}}))
    reason = f"the reference's mean error above its clean error is {shown}, below smallest=0.01: a ratio to it would mean nothing"
    assert got["net", "relative_ce", "brightness"].reason == reason
    assert got["net", "relative_mce", ""].reason.startswith("brightness: the reference's mean")
    assert got["net", "ce", "brightness"].value == pytest.approx(100 * 0.4 / error)
    assert got["net", "mce", ""].status is Status.OK


def test_a_denominator_near_the_threshold_gives_no_interval():
    ref = {"clean": flags(0.1), **full(lambda kind, s: np.roll(flags(0.13), 50))}  # 3 points above clean, on other samples
    got = read(TO_REF, graded_table({"ref": ref, "net": {"clean": 0.1, **full(lambda kind, s: 0.4)}}))["net", "relative_mce", ""]
    assert got.value == pytest.approx(1000)
    assert (got.low, got.high, got.confidence) == (None, None, None)
    assert got.reason == "no interval: on samples drawn again the denominator comes too close to 0"


def test_no_interval_where_a_resampled_denominator_falls_below_smallest():
    few, many = flags(0.015, 1000), flags(0.4, 1000)  # 0.015 is above the threshold, a tenth of the resamples are below it, none is 0
    got = read(
        TO_REF, graded_table({"ref": {"clean": few, **full(lambda kind, s: few)}, "net": {"clean": few, **full(lambda kind, s: many)}})
    )
    assert (got["net", "ce", "fog"].value, got["net", "ce", "fog"].low) == (pytest.approx(100 * 0.4 / 0.015), None)


def test_procedural_frost_is_called_nonstandard_in_mce():
    cells = {item: given for item, given in full(lambda kind, s: 0.5).items() if item.name != "frost"}
    for summary, shape in ((FAST, (3, 224, 224)), (MCE(resamples=200, reference=NetReference(label="net")), (3, 16, 16))):
        got = read(summary, graded_table({"net": {"clean": 0.25, **cells, **{Frost(severity=s): 0.5 for s in SEVERITIES}}}, shape=shape))
        why = "procedural textures" + ", lengths x 0.5" * (shape[1] == 16)
        assert got["net", "ce", f"frost (nonstandard: {why})"].value is not None
        for name in ("mce", "relative_mce"):
            assert got["net", name, ""].value is not None
            assert got["net", name, ""].reason.startswith(f"not as published: frost has {why}")


def test_any_run_can_be_the_reference():
    rng, items = np.random.default_rng(0), full(lambda kind, s: 0)
    mine, theirs = ({item: rng.random(50) < share for item in items} for share in (0.8, 0.5))
    errors = [error_table(graded_table({"net": cells}), "net") for cells in (mine, theirs)]
    by_hand = {(item.name, item.severity): 1 - right.mean() for item, right in mine.items()}
    assert errors[0].tolist() == [[by_hand[kind, s] for s in SEVERITIES] for kind in TYPES]
    together = read(TO_REF, graded_table({"ref": theirs, "net": mine}))
    assert corruption_errors(*errors).mean() == pytest.approx(together["net", "mce", ""].value)


@pytest.mark.parametrize(
    ("change", "reason"), [({("fog", 2): None}, "fog failed at severity 2"), ({("fog", 2): "absent"}, "fog lacks severity 2")]
)
def test_error_tables_are_whole(change, reason):
    cells = {item: change.get((item.name, item.severity), 0.5) for item in full(lambda kind, s: 0)}
    with pytest.raises(UndefinedReading, match=f"errors of net are not complete: {reason}"):
        error_table(graded_table({"net": {item: given for item, given in cells.items() if given != "absent"}}), "net")


def test_a_type_with_two_settings():
    cells = full(lambda kind, s: 0.5) | {corruption("fog", s, strong=True): 0.6 for s in SEVERITIES}
    got = read(FAST, graded_table({"net": {"clean": 0.1, **cells}}))
    assert "fog is measured with several settings" in got["net", "mce", ""].reason


def test_its_text():
    assert parse("mce") == MCE()
    assert parse("mce(reference=net(standard), smallest=0.02)") == MCE(reference=NetReference(label="standard"), smallest=0.02)
    with pytest.raises(SpecError):
        MCE(smallest=0.0)
