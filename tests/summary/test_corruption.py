import numpy as np
import pytest

import brinell as br
from brinell.core.confidence import clopper_pearson
from brinell.core.measurement import Status
from brinell.perturb.blur import GaussianBlur
from brinell.perturb.fog import Fog
from brinell.perturb.frost import Frost
from brinell.summary.corruption import CorruptionError
from brinell.summary.graded import MAIN, SEVERITIES, TYPES
from ladders import corruption, flags, graded_table, read

FAST = CorruptionError(resamples=200)


def all_types(error, extra=()):
    """Cells of the 15 types with error(type number, severity)."""
    family = {kind: name for name, kinds in MAIN.items() for kind in kinds}
    return {
        corruption(kind, s, family[kind]): error(k, s) for k, kind in enumerate([*TYPES, *extra]) for s in SEVERITIES if kind in family
    } | {corruption(kind, s, "noise", main=False): error(k + 15, s) for k, kind in enumerate(extra) for s in SEVERITIES}


def test_the_fifteen_types():
    assert len(TYPES) == len(set(TYPES)) == 15
    assert TYPES[:3] == ("gaussian_noise", "shot_noise", "impulse_noise")
    assert TYPES[-1] == "jpeg_compression"


def test_every_mean_by_hand():
    cells = all_types(lambda k, s: 0.01 * k + 0.1 * s, extra=("speckle_noise",))
    got = read(FAST, graded_table({"net": {"clean": 0.05, **cells}}))

    def value(name, layer=""):
        return got["net", name, layer].value

    assert value("corrupted_error", "fog(severity=3)") == pytest.approx(0.09 + 0.3)
    assert value("corrupted_error", "fog") == pytest.approx(0.09 + 0.3)  # fog is number 9
    assert value("corrupted_error", "severity 5") == pytest.approx(0.07 + 0.5)
    assert value("corrupted_error", "family blur") == pytest.approx(0.01 * (3 + 4 + 5 + 6) / 4 + 0.3)
    assert value("corrupted_error", "speckle_noise") == pytest.approx(0.15 + 0.3)  # meant for validation: not in family noise
    assert value("corrupted_error", "family noise") == pytest.approx(0.01 + 0.3)
    assert value("mean_corruption_error_unnormalised") == pytest.approx(0.07 + 0.3)
    assert value("mean_error_measured_cells") == pytest.approx(0.07 + 0.3)
    assert got["net", "mean_error_measured_cells", ""].reason == "over 75 of 75 cells of the plan"
    assert value("accuracy_drop", "severity 5") == pytest.approx(0.57 - 0.05)
    assert value("accuracy_ratio", "fog(severity=3)") == pytest.approx(0.61 / 0.95)
    assert ("net", "mce", "") not in got


def test_intervals_of_cells_are_exact_and_all_hold_their_value():
    cells = all_types(lambda k, s: 0.01 * k + 0.1 * s)
    got = read(FAST, graded_table({"net": {"clean": 0.05, **cells}}))
    cell = got["net", "corrupted_error", "fog(severity=3)"]
    assert (cell.low, cell.high, cell.n, cell.confidence) == (*clopper_pearson(39, 100, 0.95), 100, 0.95)
    for reading in got.values():
        assert reading.low <= reading.value <= reading.high
        assert reading.high - reading.low < 0.35


def test_samples_are_resampled_jointly():
    """Twenty cells that are all wrong on the same samples say no more than one of them."""
    wrong = flags(0.3)
    same = {corruption("fog", s): wrong for s in SEVERITIES} | {corruption("snow", s): wrong for s in SEVERITIES}
    got = read(CorruptionError(), graded_table({"net": {"clean": 0.0, **same}}))["net", "mean_error_measured_cells", ""]
    low, high = clopper_pearson(30, 100)
    assert got.value == pytest.approx(0.3)
    assert (got.low, got.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    spread = {corruption("fog", s): np.roll(wrong, 20 * s) for s in SEVERITIES}
    narrow = read(CorruptionError(), graded_table({"net": {"clean": 0.0, **spread}}))["net", "mean_error_measured_cells", ""]
    assert narrow.high - narrow.low < 0.5 * (high - low)
    drop = read(CorruptionError(), graded_table({"net": {"clean": flags(0.25), **same}}))["net", "accuracy_drop", "fog"]
    assert drop.value == pytest.approx(0.05)
    assert 0 <= drop.low < 0.05 < drop.high < 0.12  # paired: five of a hundred samples differ


def test_the_same_numbers_every_time():
    table = graded_table({"net": {"clean": 0.1, corruption("fog", 1): 0.3, corruption("fog", 2): 0.4}})
    assert FAST(table) == FAST(table)


def test_without_errors_the_interval_is_that_of_an_event_never_seen():
    table = graded_table(
        {"net": {"clean": 0.0, **{corruption("fog", s): 0.0 for s in (1, 2)}, **{corruption("snow", s): 1.0 for s in (1, 2)}}}
    )
    got = read(FAST, table)
    fog, snow = got["net", "corrupted_error", "fog"], got["net", "corrupted_error", "snow"]
    assert (fog.value, fog.low, fog.high) == (0.0, *clopper_pearson(0, 100))
    assert (snow.value, snow.low, snow.high) == (1.0, *clopper_pearson(100, 100))
    drop = got["net", "accuracy_drop", "snow"]
    assert (drop.value, drop.low, drop.reason) == (1.0, None, "over severity 1, 2 only; no interval: the samples do not vary")


@pytest.mark.parametrize(("change", "reason"), [
    ({("frost", s): "absent" for s in SEVERITIES}, "frost is not measured"),
    ({("fog", 2): "absent", ("fog", 4): "absent", ("snow", 1): "absent"}, "snow lacks severity 1; fog lacks severity 2, 4"),
    ({("fog", 2): None}, "fog failed at severity 2"),
])  # fmt: skip
def test_all_75_cells_or_none(change, reason):
    cells = {item: change.get((item.name, item.severity), 0.2) for item in all_types(lambda k, s: 0.2)}
    table = graded_table({"net": {"clean": 0.1, **{item: given for item, given in cells.items() if given != "absent"}}})
    got = read(FAST, table)
    mean = got["net", "mean_corruption_error_unnormalised", ""]
    assert (mean.status, mean.reason) == (Status.UNDEFINED, reason)
    assert got["net", "mean_error_measured_cells", ""].value == pytest.approx(0.2)


def test_one_type_with_two_settings_is_no_ladder():
    cells = all_types(lambda k, s: 0.2) | {corruption("fog", s, "weather", strong=True): 0.6 for s in SEVERITIES}
    got = read(FAST, graded_table({"net": {"clean": 0.1, **cells}}))
    assert got["net", "corrupted_error", "fog(severity=*)"].value == pytest.approx(0.2)
    assert got["net", "corrupted_error", "fog(severity=*, strong=True)"].value == pytest.approx(0.6)
    assert got["net", "mean_corruption_error_unnormalised", ""].reason.startswith(
        "fog is measured with several settings (fog(severity=*), fog("
    )


def test_means_over_uneven_types_are_undefined():
    cells = {corruption("fog", 1, "weather"): 0.1, corruption("fog", 5, "weather"): 0.5, corruption("snow", 5, "weather"): 0.7}
    got = read(FAST, graded_table({"net": {"clean": 0.0, **cells}}))
    assert got["net", "corrupted_error", "severity 1"].reason == "not measured at this severity: snow"
    assert got["net", "corrupted_error", "severity 5"].value == pytest.approx(0.6)
    assert got["net", "corrupted_error", "family weather"].reason == "other severities than of fog: snow"
    assert (got["net", "corrupted_error", "fog"].value, got["net", "corrupted_error", "fog"].reason) == (
        pytest.approx(0.3),
        "over severity 1, 5 only",
    )
    assert got["net", "mean_error_measured_cells", ""].value == pytest.approx(1.3 / 3)


def test_a_failed_cell_takes_the_means_it_enters_with_it():
    cells = {corruption("fog", 1): 0.1, corruption("fog", 2): None, corruption("snow", 1): 0.3, corruption("snow", 2): 0.5}
    got = read(FAST, graded_table({"net": {"clean": 0.0, **cells}}))
    for layer in ("fog(severity=2)", "fog", "severity 2", "family noise"):
        for name in ("corrupted_error", "accuracy_drop", "accuracy_ratio"):
            assert got["net", name, layer].reason == "the cell fog(severity=2) failed"
    assert got["net", "corrupted_error", "severity 1"].value == pytest.approx(0.2)
    measured = got["net", "mean_error_measured_cells", ""]
    assert (measured.value, measured.reason) == (pytest.approx(0.3), "over 3 of 4 cells of the plan")


def test_ratios_to_nothing_are_undefined():
    got = read(FAST, graded_table({"net": {"clean": 1.0, corruption("fog", 1): 0.9}}))
    assert got["net", "accuracy_ratio", "fog"].reason == "clean accuracy is 0"
    assert got["net", "accuracy_drop", "fog"].value == pytest.approx(-0.1)
    got = read(FAST, graded_table({"net": {"clean": None, corruption("fog", 1): 0.9}}))
    assert got["net", "accuracy_drop", "fog"].reason == "the clean samples were not measured"
    got = read(FAST, graded_table({"net": {"clean": 0.99, corruption("fog", 1): 0.9}}))
    assert got["net", "accuracy_ratio", "fog"].low is None
    assert "on samples drawn again the denominator" in got["net", "accuracy_ratio", "fog"].reason


def test_tables_without_graded_corruptions_and_of_one_sample():
    got = read(FAST, graded_table({"net": {"clean": 0.1}}))
    assert {(name, reading.status) for (_, name, _), reading in got.items()} == {
        ("mean_corruption_error_unnormalised", Status.UNDEFINED), ("mean_error_measured_cells", Status.UNDEFINED)}  # fmt: skip
    got = read(FAST, graded_table({"net": {"clean": [True], corruption("fog", 1): [True], corruption("snow", 1): [False]}}))
    mean = got["net", "mean_error_measured_cells", ""]
    assert (mean.value, mean.low, mean.reason) == (0.5, None, "over 2 of 2 cells of the plan; no interval: there is one sample")


def test_networks_do_not_mix():
    fog = corruption("fog", 1)
    got = read(FAST, graded_table({"a": {"clean": 0.1, fog: 0.2}, "b": {"clean": 0.3, fog: 0.8}}))
    assert got["a", "accuracy_drop", "fog"].value == pytest.approx(0.1)
    assert got["b", "accuracy_drop", "fog"].value == pytest.approx(0.5)


def test_departures_from_the_published_corruptions_are_told():
    cells = all_types(lambda k, s: 0.2)
    changed = {corruption(i.name, i.severity, i.family, quantize=False) if i.name == "fog" else i: given for i, given in cells.items()}
    mean = read(FAST, graded_table({"net": {"clean": 0.1, **changed}}))["net", "mean_corruption_error_unnormalised", ""]
    assert (mean.value, mean.reason) == (pytest.approx(0.2), "not as published: fog is not rounded to 8 bits")


def test_what_is_not_published_is_called_nonstandard():
    """Scaled lengths below 32 pixels, and frost without the authors' photographs; two settings of one type keep their texts."""
    frost, blur, fog = Frost(severity=2), GaussianBlur(severity=1), Fog(severity=1)
    cells = {frost: 0.2, blur: 0.3, fog: 0.4, GaussianBlur(severity=1, quantize=False): 0.5}
    small = read(FAST, graded_table({"net": {"clean": 0.1, **cells}}, shape=(1, 8, 8)))
    layers = {layer for _, name, layer in small if name == "corrupted_error"}
    assert layers >= {
        "fog", "frost (nonstandard: procedural textures, lengths x 0.25)", "gaussian_blur(severity=*) (nonstandard: lengths x 0.25)",
        "gaussian_blur(quantize=False, severity=*) (nonstandard: lengths x 0.25)",
    }  # fmt: skip
    large = read(FAST, graded_table({"net": {"clean": 0.1, frost: 0.2, blur: 0.3}}, shape=(3, 32, 32)))
    assert {layer for _, name, layer in large if name == "corrupted_error"} >= {"gaussian_blur", "frost (nonstandard: procedural textures)"}
    every = {i: g for i, g in all_types(lambda k, s: 0.2).items() if i.name != "frost"} | {Frost(severity=s): 0.2 for s in SEVERITIES}
    mean = read(FAST, graded_table({"net": {"clean": 0.1, **every}}))["net", "mean_corruption_error_unnormalised", ""]
    assert (mean.value, mean.reason) == (pytest.approx(0.2), "not as published: frost has procedural textures")


def test_real_corruptions_through_the_lab():
    data = br.load_dataset("digits(side=8)", limit=40)
    net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
    table = br.Lab().measure({"a": net}, data, [f"gaussian_noise(severity={s})" for s in SEVERITIES], ["accuracy"], ["corruption_error"])
    accuracy = [table.value("accuracy", perturbation=f"gaussian_noise(severity={s})") for s in SEVERITIES]
    row = table.row("corrupted_error", perturbation="", layer="gaussian_noise")
    assert row["value"] == pytest.approx(1 - np.mean(accuracy))
    assert row["low"] <= row["value"] <= row["high"]
    assert table.row("corrupted_error", perturbation="", layer="family noise")["value"] == pytest.approx(row["value"])


@pytest.mark.slow
def test_the_bootstrap_of_a_mean_over_cells_covers():
    """600 runs of 200 samples whose cells share a difficulty: the 90 % interval holds the truth in 90 % of them."""
    rng, hits, runs = np.random.default_rng(0), 0, 600
    ladder = [corruption("fog", s) for s in SEVERITIES]
    limits = np.array([0.1, 0.2, 0.3, 0.4, 0.6])
    for _ in range(runs):
        hard = rng.random((200, 1))  # a sample is wrong at a severity where its own difficulty and some chance say so
        wrong = 0.7 * hard + 0.3 * rng.random((200, 5)) > 1 - limits
        cells = {"clean": np.ones(200, bool), **{item: ~wrong[:, k] for k, item in enumerate(ladder)}}
        got = read(CorruptionError(confidence=0.9, resamples=500), graded_table({"net": cells}))["net", "corrupted_error", "fog"]
        hits += got.low <= TRUTH <= got.high
    assert 0.87 <= hits / runs <= 0.93


def _truth():
    """P[0.7 u + 0.3 v > 1 - t] for uniform u, v, averaged over the five t, by the area of the square beyond the line."""
    u = (np.arange(200_000) + 0.5) / 200_000
    return float(np.mean([np.clip(1 - (1 - t - 0.7 * u) / 0.3, 0, 1).mean() for t in (0.1, 0.2, 0.3, 0.4, 0.6)]))


TRUTH = _truth()
