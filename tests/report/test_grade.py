"""Perturbations are grouped by family and ordered by size."""

from __future__ import annotations

import pytest

from brinell.report.grade import grade


@pytest.mark.parametrize(
    ("spec", "kind", "family", "scale", "size", "shown"),
    [
        ("clean", "clean", "clean", "", 0, ""),
        ("gaussian_noise(severity=5)", "corruption", "gaussian_noise", "severity", 5, "5"),
        ("gaussian_noise", "corruption", "gaussian_noise", "severity", 3, "3"),
        ("contrast(preset=cifar, severity=1)", "corruption", "contrast(preset=cifar)", "severity", 1, "1"),
        ("contrast(quantize=False, severity=1)", "corruption", "contrast(quantize=False)", "severity", 1, "1"),
        ("fgsm(threat=ball(eps=8/255, norm=inf))", "attack", "fgsm", "Linf", 8 / 255, "8/255"),
        ("pgd(restarts=2, steps=7, threat=ball(norm=2.0, eps=0.5))", "attack", "pgd(restarts=2, steps=7)", "L2", 0.5, "0.5"),
        ("fgsm(threat=ball(eps=3, high=255, norm=1))", "attack", "fgsm in [0, 255]", "L1", 3, "3"),
        ("uniform_noise(threat=ball(eps=2/255, norm=inf))", "control", "uniform_noise", "Linf", 2 / 255, "2/255"),
        ("uniform_noise", "control", "uniform_noise", "Linf", 8 / 255, "8/255"),
        ("no_such_item(severity=2)", "other", "no_such_item(severity=2)", "", 0, ""),
        ("__import__('os').system('true')", "other", "__import__('os').system('true')", "", 0, ""),
    ],
)
def test_a_spec_says_its_kind_family_and_size(spec: str, kind: str, family: str, scale: str, size: float, shown: str):
    found = grade(spec)
    assert (found.spec, found.kind, found.family, found.scale, found.shown) == (spec, kind, family, scale, shown)
    assert found.size == pytest.approx(size)


def test_what_is_no_perturbation_is_shown_and_not_ordered():
    assert grade("accuracy").kind == "other"
