"""Checks on hand-built tables: each rule at, below and above its threshold. Real networks are in tests/sabotage."""

import pytest

import brinell as br
from brinell.core.measurement import Verdict
from brinell.summary.checks import PROBED, Checks

PASS, FLAG, FAIL = Verdict.PASS, Verdict.FLAG, Verdict.FAIL
PGD, FGSM, NOISE = "pgd(threat=ball(eps=0.1))", "fgsm(threat=ball(eps=0.1))", "uniform_noise(threat=ball(eps=0.1))"


def one(table, name, checks=None):
    (found,) = [item for item in (checks or Checks())(table) if item.name == name]
    return found


def names(table):
    return [item.name for item in Checks()(table)]


def flags(*wrong, n=10, linf=0.1):
    """Samples of which those at some positions are wrong."""
    return {"correct": [k not in wrong for k in range(n)], "linf": [linf] * n}


GOOD = {
    ("probability_share", ""): 0.0, ("repeat_difference", ""): 0.0, ("repeat_changes", ""): 0.0, ("batch_difference", ""): 1e-7,
    ("batch_changes", ""): 0.0, ("no_gradient", ""): 0.0, ("mode_difference", ""): 0.0, ("mode_changes", ""): 0.0,
    ("gradient_calls", ""): 0.0, ("state_changes", ""): 0.0, ("instability", ""): 0.02, ("zero_gradient_share", "cross_entropy"): 0.0,
    ("zero_gradient_share", "margin"): 0.0, ("nonfinite_gradient_share", "cross_entropy"): 0.0,
    ("nonfinite_gradient_share", "margin"): 0.0, ("zero_gradient_share", "dlr"): 0.0, ("nonfinite_gradient_share", "dlr"): 0.0,
    ("normalisation_gain", "standardised"): 0.0,
}  # fmt: skip


def probed(**changes):
    """Rows of the probe diagnostics; `name=value` changes one, `None` makes it undefined."""
    rows = []
    for (name, layer), value in GOOD.items():
        value = changes.get(f"{name}_{layer}" if layer else name, value)
        rows.append({"net": "net", "perturbation": "clean", "probe": "diagnostics", "name": name, "layer": layer, "value": value,
                     "low": None if value is None else value - changes.get("half", 0.05), "n": 50,
                     "status": "ok" if value is not None else "undefined", "reason": "" if value is not None else "nobody"})  # fmt: skip
    return rows


@pytest.mark.parametrize(
    "changes, name, verdict, value",
    [
        ({}, "probabilities", PASS, 0.0),
        ({"probability_share": 0.5}, "probabilities", PASS, 0.5),
        ({"probability_share": 0.51}, "probabilities", FLAG, 0.51),
        ({"repeat_difference": 1e-4}, "random_forward", PASS, 1e-4),
        ({"repeat_difference": 1.1e-4}, "random_forward", FLAG, 1.1e-4),
        ({"batch_difference": 1.1e-3}, "batch_dependence", FLAG, 1.1e-3),
        ({"no_gradient": 0.01}, "no_gradient", FAIL, 0.01),
        ({"mode_difference": 1e-4}, "gradient_mode", PASS, 1e-4),
        ({"mode_difference": 1.1e-4}, "gradient_mode", FAIL, 1.1e-4),
        ({"gradient_calls": 1.0}, "dynamic", FLAG, 1.0),
        ({"state_changes": 1.0}, "dynamic", FLAG, 1.0),
        ({"instability": 0.25}, "instability", PASS, 0.25),
        ({"instability": 0.26}, "instability", FLAG, 0.26),
        ({"zero_gradient_share_cross_entropy": 0.05}, "zero_gradients", PASS, 0.05),
        ({"zero_gradient_share_cross_entropy": 0.06}, "zero_gradients", FLAG, 0.06),
        ({"zero_gradient_share_cross_entropy": 1.0}, "zero_gradients", FAIL, 1.0),
        ({"nonfinite_gradient_share_cross_entropy": 1.0}, "zero_gradients", FAIL, 1.0),
        ({"nonfinite_gradient_share_dlr": 0.3}, "zero_gradients", FLAG, 0.3),
        ({"zero_gradient_share_dlr": 1.0}, "zero_gradients", FLAG, 1.0),
        ({"normalisation_gain_standardised": 0.1}, "normalisation", PASS, 0.1),
        ({"normalisation_gain_standardised": 0.11}, "normalisation", FLAG, 0.11),
        ({"normalisation_gain_standardised": 0.11, "half": 0.2}, "normalisation", PASS, 0.11),
        ({"normalisation_gain_standardised": None}, "normalisation", FLAG, None),
        ({"no_gradient": None}, "no_gradient", FLAG, None),
    ],
    ids=str,
)
def test_a_reading_is_held_against_its_threshold(make_table, changes, name, verdict, value):
    found = one(make_table({"clean": flags()}, rows=probed(**changes)), name)
    assert (found.verdict, found.value, found.net) == (verdict, value, "net")
    assert found.threshold is not None


def test_what_another_fault_explains_is_not_judged(make_table):
    found = names(make_table({"clean": flags()}, rows=probed(repeat_difference=0.5, no_gradient=1.0)))
    assert "batch_dependence" not in found and "zero_gradients" not in found


def test_the_remedy_tells_saturated_logits_from_hidden_gradients(make_table):
    saturated = probed(zero_gradient_share_cross_entropy=0.9, nonfinite_gradient_share_margin=0.02)
    hidden = probed(zero_gradient_share_cross_entropy=0.9, zero_gradient_share_margin=0.9)
    broken = probed(nonfinite_gradient_share_margin=0.2)
    said = [one(make_table({"clean": flags()}, rows=rows), "zero_gradients").message for rows in (saturated, hidden, broken)]
    assert "saturated" in said[0] and "margin 0.0%, 2.0%" in said[0] and "without gradients" in said[1] and "logarithm at 0" in said[2]


def test_without_the_probe_one_flag_says_what_is_missing(make_table):
    table = make_table({"clean": flags()})
    found = one(table, "diagnostics")
    assert found.verdict is FLAG and all(name in found.message for name in PROBED)
    assert not set(PROBED) & set(names(table))


def test_a_failed_probe_is_named_with_its_reason(make_table):
    row = {"net": "net", "perturbation": "clean", "probe": "diagnostics", "name": "diagnostics", "layer": "", "value": None,
           "status": "failed", "reason": "RuntimeError: no memory"}  # fmt: skip
    table = make_table({"clean": flags()}, rows=[row])
    assert "no memory" in one(table, "diagnostics").message
    found = one(table, "failed_probes")
    assert found.verdict is FLAG and "no memory" in found.message


def test_failed_cells_keep_their_reason(make_table):
    found = one(make_table({"clean": flags(), PGD: "ThreatViolation: it went too far"}), "failed_cells")
    assert found.verdict is FAIL and "it went too far" in found.message and found.perturbation == br.parse(PGD).spec()
    assert one(make_table({"clean": flags()}), "failed_cells").verdict is PASS


def test_training_mode_and_domain_are_read_off_the_plan(make_table):
    assert one(make_table({"clean": flags()}, training=True), "train_mode").verdict is FLAG
    assert one(make_table({"clean": flags()}), "train_mode").verdict is PASS
    assert "[-1, 2]" in one(make_table({"clean": flags()}, domain=(-1.0, 2.0)), "domain").message


@pytest.mark.parametrize("right, verdict", [(10, PASS), (8, FLAG), (5, FLAG)])
def test_accuracy_must_be_surely_above_the_commonest_label(make_table, right, verdict):
    """Half of ten labels are 0; the exact interval of 8 of 10 starts at 0.444, that of 10 of 10 at 0.69."""
    columns = {"correct": [k < right for k in range(10)], "label": [0] * 5 + [1, 2, 3, 4, 5]}
    found = one(make_table({"clean": columns}, notes=("randomly initialised (seed 0)",)), "chance")
    assert (found.verdict, found.value, found.threshold) == (verdict, right / 10, 0.5)
    assert ("randomly initialised" in found.message) == (verdict is FLAG)


def test_outputs_without_an_answer_fail(make_table):
    mute = {**flags(3), "finite": [k != 3 for k in range(10)], "id": range(20, 30)}
    clean = {**flags(), "id": range(20, 30)}
    found = one(make_table({"clean": clean, PGD: mute}), "nonfinite_output")
    assert (found.verdict, found.value) == (FAIL, 0.1) and "sample 23 " in found.message and found.perturbation.startswith("pgd")


@pytest.mark.parametrize(
    "noise, attack, verdict, value",
    [
        (flags(1), flags(1, 2), PASS, 0.0),
        (flags(3), flags(1, 2), FLAG, 0.1),  # chance finds sample 3, but the attack breaks more
        (flags(1, 2, 3), flags(1, 2), FAIL, 0.1),
        (flags(3, linf=0.2), flags(1), None, None),  # the noise leaves the ball
        (flags(0), flags(1), PASS, 0.0),  # sample 0 is wrong without any noise
    ],
)
def test_noise_may_not_find_what_attacks_do_not(make_table, noise, attack, verdict, value):
    table = make_table({"clean": flags(0), "brightness": noise, PGD: attack})
    if verdict is None:
        assert "noise_control" not in names(table)
    else:
        found = one(table, "noise_control")
        assert (found.verdict, found.value) == (verdict, value)


def test_the_attacks_of_a_threat_are_taken_together(make_table):
    table = make_table({"clean": flags(), NOISE: flags(3), PGD: flags(1), FGSM: flags(3)})
    assert one(table, "noise_control").verdict is PASS
    assert (one(table, "one_step").verdict, one(table, "one_step").value) == (FLAG, 0.1)


def test_a_threshold_may_be_raised(make_table):
    table = make_table({"clean": flags(), PGD: flags(1, 2), FGSM: flags(3)})
    assert one(table, "one_step").verdict is FLAG and one(table, "one_step", Checks(alone=0.1)).verdict is PASS


def test_attacks_after_another_goal_are_not_compared(make_table):
    targeted = "pgd(goal=target(label=runner_up), threat=ball(eps=0.1))"
    assert not {"one_step", "monotone", "noise_control"} & set(names(make_table({"clean": flags(), targeted: flags(), NOISE: flags(1)})))


@pytest.mark.parametrize(
    "small, middle, large, verdict, value",
    [
        (flags(1), flags(1, 2), flags(1, 2, 3), PASS, 0.0),
        (flags(1), flags(2, 3), flags(2, 3, 4), FLAG, 0.1),
        (flags(1), flags(1, 2, 3), flags(1, 2), FAIL, 0.1),
    ],
)
@pytest.mark.parametrize("attack", ["pgd", "fgsm"])
def test_a_larger_ball_breaks_no_less(make_table, attack, small, middle, large, verdict, value):
    balls = {f"{attack}(threat=ball(eps={eps}))": cell for eps, cell in ((0.3, large), (0.1, small), (0.2, middle))}
    found = one(make_table({"clean": flags(), **balls}), "monotone")
    expected = FLAG if attack == "fgsm" and verdict is FAIL else verdict  # one step may overshoot
    assert (found.verdict, found.value) == (expected, value)
    if verdict is FAIL:
        assert "rises from 0.700 at 0.2 to 0.800 at 0.3" in found.message


@pytest.mark.parametrize("short, long, verdict, value", [(flags(1), flags(1), PASS, 0.0), (flags(1), flags(1, 2), FLAG, 0.1)])
@pytest.mark.parametrize("more, less", [("steps=80", "steps=40"), ("restarts=3", "restarts=1")])
def test_more_budget_should_gain_nothing(make_table, short, long, verdict, value, more, less):
    table = make_table({"clean": flags(), f"pgd({more}, threat=ball(eps=0.1))": long, f"pgd({less}, threat=ball(eps=0.1))": short})
    found = one(table, "longer")
    assert (found.verdict, found.value) == (verdict, value) and more.partition("=")[0] in found.message


@pytest.mark.parametrize("attack", ["fmn", "fab(threat=ball(eps=inf))", "pgd(threat=ball(eps=1.0))", "pgd(threat=ball(norm=2, eps=2.0))"])
@pytest.mark.parametrize("right, verdict", [(0, PASS), (1, FLAG), (2, FAIL)])
def test_an_attack_without_bounds_must_break_everything(make_table, attack, right, verdict):
    """Four entries in [0, 1]: the domain lies within 1 in Linf and within 2 in L2."""
    cell = {"correct": [k < right for k in range(20)], "linf": [0.9] * 20}
    found = one(make_table({"clean": flags(n=20), attack: cell}), "unbounded")
    assert (found.verdict, found.value) == (verdict, right / 20)
    assert "unbounded" not in names(make_table({"clean": flags(n=20), "pgd(threat=ball(norm=2, eps=1.9))": cell}))


def test_a_reported_success_that_is_none_is_counted(make_table):
    done = {**flags(0, 1, 2, n=4), "status": [0, 0, 1, 0]}  # sample 3 is reported, and right
    assert (one(make_table({"clean": flags(n=4), "fmn": done}), "silent_success").value, PASS) == (0.25, PASS)
    assert one(make_table({"clean": flags(n=4), "fmn": {**flags(0, 1, 2, n=4), "status": [0, 0, 0, 1]}}), "silent_success").verdict is PASS


@pytest.mark.parametrize(
    "eps, cell, verdict, value",
    [
        (0.4, flags(1, linf=0.4), PASS, 0.0),
        (0.5, flags(1), FLAG, 0.5),  # half of [0, 1]: every sample may be grey
        (0.255, flags(*range(5), linf=0.001), PASS, 0.5),
        (0.255, flags(*range(6), linf=0.001), FLAG, 0.6),  # most are broken by 1/255 of eps
        (0.255, flags(*range(6), linf=0.002), PASS, 0.0),
    ],
)
def test_eps_and_data_in_the_same_units(make_table, eps, cell, verdict, value):
    found = one(make_table({"clean": flags(), f"pgd(threat=ball(eps={eps}))": cell}), "budget_scale")
    assert (found.verdict, found.value) == (verdict, value)


def trials(**values):
    """Rows of the probes `escalation` and `binarisation` for one attack."""
    rows = []
    for name, value in values.items():
        rows.append({"net": "net", "perturbation": "clean", "probe": "tried", "name": name, "layer": PGD, "value": value, "n": 50,
                     "status": "ok" if value is not None else "undefined", "reason": "" if value is not None else "nobody"})  # fmt: skip
    return rows


@pytest.mark.parametrize(
    "values, name, verdict",
    [
        ({"longer_gain": 0.02}, "longer", PASS),
        ({"longer_gain": 0.03}, "longer", FLAG),
        ({"noise_gain": 0.02}, "noise_control", PASS),
        ({"noise_gain": 0.03}, "noise_control", FLAG),
        ({"unbounded_accuracy": 0.0}, "unbounded", PASS),
        ({"unbounded_accuracy": 0.02}, "unbounded", FAIL),
        ({"unbounded_accuracy": None}, "unbounded", FLAG),
        ({"binarisation_success": 0.95, "binarisation_random": 0.1}, "binarisation", PASS),
        ({"binarisation_success": 0.93, "binarisation_random": 0.1}, "binarisation", FLAG),
        ({"binarisation_success": 0.5, "binarisation_random": 0.1}, "binarisation", FAIL),
        ({"binarisation_success": 0.93, "binarisation_random": 0.95}, "binarisation", FAIL),
        ({"binarisation_success": 1.0, "binarisation_random": 1.0}, "binarisation", FLAG),
        ({"binarisation_success": None, "binarisation_random": None}, "binarisation", FLAG),
    ],
    ids=str,
)
def test_what_was_tried_with_an_attack_is_judged(make_table, values, name, verdict):
    found = one(make_table({"clean": flags()}, rows=[*probed(), *trials(**values)]), name)
    assert (found.verdict, found.perturbation, found.net) == (verdict, PGD, "net")


def test_only_attacks_that_differ_in_eps_alone_form_a_curve(make_table):
    others = {
        "pgd(threat=ball(eps=0.1))": flags(1),
        "pgd(steps=3, threat=ball(eps=0.2))": flags(),
        "pgd(threat=ball(norm=2, eps=0.2))": flags(),
    }
    assert "monotone" not in names(make_table({"clean": flags(), **others}))
