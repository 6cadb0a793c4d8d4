"""The checklist of robustness evaluation: one run in which each of its items is a finding by name."""

import pytest
import torch

import brinell as br
from brinell.core.measurement import Verdict
from brinell.models.reference import linear_network

ATTACK = "pgd(steps=10, threat=ball(eps=0.05))"
CHECKLIST = {
    "clean accuracy is known, and from enough samples": ("chance", "sample_size"),
    "evaluation mode, and logits instead of probabilities": ("train_mode", "probabilities"),
    "inputs in their range, normalised where they should be, eps in the same units": ("domain", "normalisation", "budget_scale"),
    "randomness": ("random_forward",),
    "gradients that are zero, NaN or cut off": ("zero_gradients", "no_gradient"),
    "unstable predictions": ("instability",),
    "silent success": ("silent_success",),
    "incomplete optimisation": ("longer",),
    "transfer failure": ("transfer_failure",),
    "an attack without bounds": ("unbounded",),
    "monotone in eps": ("monotone",),
    "iterative and single step, white box and black box, chance": ("one_step", "black_box", "noise_control", "noise_search"),
    "binarisation": ("binarisation",),
    "a network that adapts while it answers": ("dynamic", "gradient_mode"),
    "bounds obeyed, also in 8 bits": ("bounds_obeyed", "eight_bit"),
    "batches": ("batch_dependence",),
    "certificates and attacks": ("contradiction",),
    "labels that leak, duplicates": ("label_leakage", "duplicates", "conflicting_labels"),
    "cells and answers that are missing": ("failed_cells", "nonfinite_output"),
}

pytestmark = pytest.mark.slow


def ridge(rows):
    """A linear classifier by ridge regression."""
    train = br.load_dataset("digits(side=8, split=train)")
    x, y = train.x().flatten(1).double()[rows], train.labels()[rows]
    weight = torch.linalg.solve(x.T @ x + torch.eye(64, dtype=torch.float64), x.T @ torch.nn.functional.one_hot(y, 10).double())
    return linear_network(weight.T.float()).eval()


@pytest.fixture(scope="module")
def findings():
    digits = br.load_dataset("digits(side=8)", limit=150)
    data = br.Dataset.from_arrays((digits.x() * 255).round() / 255, digits.labels())
    perturbations = [
        ATTACK, ATTACK.replace("0.05", "0.1"), ATTACK.replace("10", "20"), "fgsm(threat=ball(eps=0.05))",
        "uniform_noise(threat=ball(eps=0.05))",
        "square(queries=100, threat=ball(eps=0.05))", f"transfer(source=net(other), attack={ATTACK})",
    ]  # fmt: skip
    probes = [
        "accuracy", "diagnostics(share=1)", "duplicates", "eight_bit", "ibp(threat=ball(eps=0.01))",
        f"escalation(attack={ATTACK}, share=0.2)",
        f"noise_search(attack={ATTACK}, share=0.2, tries=500)", f"binarisation(attack={ATTACK}, share=0.1, inner=40)",
    ]  # fmt: skip
    nets = {"net": ridge(slice(0, None, 2)), "other": ridge(slice(1, None, 2))}
    return br.Lab(device="cpu").measure(nets, data, perturbations, probes, ["bound", "checks"]).findings


@pytest.mark.parametrize("item", CHECKLIST)
def test_every_item_of_the_checklist_is_a_finding_with_its_number(findings, item):
    for name in CHECKLIST[item]:
        found = [one for one in findings if one.name == name and one.net in ("", "net")]
        assert found, name
        assert all(one.message and (one.value is not None or name == "domain") for one in found)


def test_nothing_of_a_sound_evaluation_fails(findings):
    assert [(one.name, one.message) for one in findings if one.verdict is Verdict.FAIL] == []
    assert [one.message for one in findings if one.name in ("failed_probes", "diagnostics", "lost_samples")] == []
