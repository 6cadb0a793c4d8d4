"""Hand-built tables: nothing is measured, so that every number in a report is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from brinell.core.confidence import proportion
from brinell.core.lab import Table
from brinell.core.measurement import Bound, Finding, Reading, Status, Verdict, measurement

FAULTS = ("gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression")
LAYERS = ("conv1:0", "layer1.0.relu:0", "layer1.0.relu:1", "layer2.0.relu:0", "layer2.0.relu:1", "layer3.0.relu:0")
N = 500

Build = Callable[..., Table]


def accuracy(right: int, n: int = N, **more: Any) -> Reading:
    low, high = proportion(np.arange(n) < right, 0.95)
    return Reading("accuracy", right / n, low=low, high=high, confidence=0.95, n=n, **more)


def row(net: str, perturbation: str, reading: Reading, probe: str = "accuracy", **more: Any) -> dict[str, Any]:
    about = {
        "net": net, "data": "digits", "perturbation": perturbation, "probe": probe, "seed": 0, "perturbation_full": f"{perturbation}()",
        "probe_full": f"{probe}()", "net_digest": "ab12", "data_digest": "cd34", "versions": "brinell 0.1.0; torch 2.13",
        "forwards": 500, "backwards": 0, "seconds": 0.5, **more,
    }  # fmt: skip
    return measurement(reading, **about)


def plan(networks: Iterable[str], perturbations: Iterable[str], **more: Any) -> dict[str, Any]:
    nets = {
        net: {"recipe": f"small_cnn({at})", "digest": "ab12", "notes": [], "parameters": 12345, "training": False}
        for at, net in enumerate(networks)
    }
    return {
        "networks": nets,
        "data": {"spec": "digits", "digest": "cd34", "n": N, "shape": [1, 8, 8], "classes": [str(k) for k in range(10)],
                 "domain": [0, 1], "note": "stratified sample"},
        "perturbations": list(perturbations), "probes": ["accuracy", "class_selectivity"], "summaries": [], "seed": 0,
        "environment": {"brinell": "0.1.0", "torch": "2.13", "python": "3.11", "machine": "x86_64", "device": "cpu",
                        "date": "2026-01-31", "threads": 2},
        **more,
    }  # fmt: skip


def cell(net: str, spec: str, right: int, **cost: Any) -> list[dict[str, Any]]:
    """All readings of one cell, from how many of 500 samples are right."""
    share = right / N
    rows = [row(net, spec, accuracy(right), **cost)]
    for k in range(10):
        own = max(0, min(50, round(50 * share) + (k % 3) - 1 - 4 * (k == 8)))
        low, high = proportion(np.arange(50) < own, 0.995)
        rows.append(row(net, spec, Reading("class_accuracy", own / 50, f"class {k}", low=low, high=high, confidence=0.95, n=50), **cost))
    worst = min(rows[1:], key=lambda found: found["value"])
    rows.append(row(net, spec, Reading("worst_class_accuracy", worst["value"], worst["layer"], n=50), **cost))
    for at, layer in enumerate(LAYERS):
        rows.append(row(net, spec, Reading("selectivity", 0.2 + 0.1 * at * share, layer, n=N), "class_selectivity", **cost))
    rows.append(row(net, spec, Reading("selectivity", 0.2 + 0.25 * share, n=N), "class_selectivity", **cost))
    for name, value in (
        ("ece", 0.02 + 0.3 * (1 - share)),
        ("overconfidence", 0.3 * (1 - share)),
        ("brier", 1 - share),
        ("nll", 2 * (1 - share)),
    ):
        bound = Bound.ESTIMATE if name == "ece" else Bound.EXACT
        rows.append(row(net, spec, Reading(name, value, bound=bound, low=value * 0.9, high=value * 1.1, n=N), "calibration", **cost))
    return rows


EXAMPLES = np.array([3, 40, 77, 250, 460, 495])


def arrays(found: Any) -> np.ndarray | None:
    """Calibration bins, and pictures whose every pixel is the accuracy of their cell; the second example is darker by half."""
    if found["name"] == "example_ids":
        return EXAMPLES
    if found["name"] == "examples":
        return np.full((len(EXAMPLES), 3, 4, 5), found["value"]) * np.array([1, 0.5, 1, 1, 1, 1])[:, None, None, None]
    if found["name"] != "ece":
        return None
    sure = np.linspace(0.35, 0.99, 10)
    return np.stack([sure, sure - found["value"] * (1 - sure), np.full(10, 0.1)], 1)


def ladder() -> list[tuple[str, float]]:
    """Perturbations and the share of clean accuracy that each leaves."""
    found = [("clean", 1.0)]
    for at, fault in enumerate(FAULTS):
        found += [(f"{fault}(severity={s})" if s != 3 else fault, 1 - (0.03 + 0.025 * (at % 4)) * s**1.2) for s in range(1, 6)]
    for eps, left in (("1/255", 0.9), ("2/255", 0.7), ("4/255", 0.35), ("8/255", 0.06)):
        found.append((f"uniform_noise(threat=ball(eps={eps}, norm=inf))", 1 - 0.02 * float(eps.split("/")[0]) / 4))
        found.append((f"fgsm(threat=ball(eps={eps}, norm=inf))", left + 0.06))
        found.append((f"pgd(steps=40, threat=ball(eps={eps}, norm=inf))", left))
    for eps, left in ((0.25, 0.8), (0.5, 0.5), (1.0, 0.12)):
        found.append((f"normal_noise(threat=ball(eps={eps}, norm=2))", 1 - 0.05 * eps))
        found.append((f"pgd(steps=40, threat=ball(eps={eps}, norm=2))", left))
    return found


def samples(right: int) -> dict[str, np.ndarray]:
    """What `cell` says, sample by sample: the first are right, the others take the next class."""
    ids = np.arange(N)
    correct = ids < right
    return {"id": ids, "label": ids % 10, "prediction": (ids + ~correct) % 10, "correct": correct, "finite": ids >= 0}


@pytest.fixture
def audit() -> Build:
    """A whole audit of some networks; the later ones are more robust."""

    def build(*networks: str, findings: bool = True) -> Table:
        names = networks or ("plain", "hardened")
        perturbations = ladder()
        rows: list[dict[str, Any]] = []
        cells: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        for at, net in enumerate(names):
            clean = 0.962 - 0.03 * at
            for spec, left in perturbations:
                right = round(N * clean * (1 - (1 - max(left, 0)) * 0.55**at))
                attack = spec.startswith(("fgsm", "pgd"))
                cost = {"forwards": 500 * (40 if attack else 1), "backwards": 500 * 40 * attack, "seconds": 12.3 if attack else 0.4}
                rows += cell(net, spec, right, **cost)
                rows.append(row(net, spec, Reading("examples", right / N, n=len(EXAMPLES)), "examples", **cost))
                rows.append(row(net, spec, Reading("example_ids", len(EXAMPLES), n=len(EXAMPLES)), "examples", **cost))
                cells[net, spec] = samples(right)
            threat = "ball(eps=8/255, norm=inf)"
            rows.append(row(net, "", Reading("robust_accuracy", 0.058 + 0.4 * at, threat, bound=Bound.UPPER, n=N), "bound"))
            if at:
                rows.append(row(net, "", Reading("robust_accuracy", 0.3123, threat, bound=Bound.LOWER, n=N), "bound"))
            rows.append(row(net, "", Reading("mce", 0.71 - 0.2 * at, n=N), "mce"))
        made = plan(names, [spec for spec, _ in perturbations], summaries=["bound", "mce"])
        made["networks"][names[0]]["notes"] = ["randomly initialised"]
        found = [
            Finding("gradient_masking", Verdict.PASS, "PGD is at least as strong as noise.", 0.0, 0.02, names[0]),
            Finding("saturation", Verdict.FLAG, "Gradients vanish for some samples; try loss=margin.", 0.12, 0.05, names[0], "fgsm"),
            Finding("contradiction", Verdict.FAIL, "3 samples are certified and broken.", 3.0, 0.0, names[-1]),
        ]
        return Table(made, rows, found if findings else [], lambda net, spec: cells.get((net, spec), {}), arrays)

    return build


@pytest.fixture
def torn() -> Table:
    """A run that was cut: one cell failed, one reading is undefined, several cells are missing."""
    specs = ["clean", "contrast(severity=1)", "contrast(severity=5)", "pgd(steps=40, threat=ball(eps=8/255, norm=inf))"]
    lost = Reading.undefined("cell", "out of memory at sample 17", status=Status.FAILED)
    mute = Reading.undefined("accuracy", "3 of 500 samples have NaN among their logits", n=N)
    rows = [
        row("a", "clean", accuracy(450)),
        row("a", "contrast(severity=1)", lost, ""),
        row("a", "contrast(severity=5)", mute),
        row("b", "clean", mute),
    ]
    return Table(plan(["a", "b"], specs), rows)


HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture
def hostile() -> Table:
    """Every text that can come from outside holds markup, a formula, terminal codes or a mark that turns text around."""
    net, spec = f"{HOSTILE}\x1b[2J<b>net</b>\u202e", f"gone({HOSTILE})"
    image = "<img src=x onerror=alert(2)>"
    rows = [row(net, "clean", accuracy(400)), row(net, spec, accuracy(300)), row(net, "contrast", accuracy(200))]
    rows += [row(net, s, Reading("class_accuracy", 0.5, f"class {name}", n=9)) for s in ("clean", "contrast") for name in (image, "=1+1")]
    rows += [
        row(net, s, Reading("selectivity", 0.5, f"{image}${{{HOSTILE}}}%{{x}}:{k}", n=9), "class_selectivity")
        for k in (0, 1)
        for s in ("clean", "contrast")
    ]
    rows.append(row(net, "fgsm", Reading.undefined("accuracy", f"{HOSTILE}{image}", n=5)))
    rows.append(row(net, "", Reading("robust_accuracy", 0.4, f"ball({HOSTILE})", bound=Bound.UPPER, n=9), "bound"))
    made = plan([net], ["clean", spec, "contrast", "fgsm"], probes=[HOSTILE], suite=image)
    made["data"] |= {"spec": f"=HYPERLINK({HOSTILE})", "note": image, "classes": [HOSTILE]}
    made["networks"][net] |= {"recipe": image, "notes": [HOSTILE, "\u2028 --ink"]}
    made["environment"] = {image: HOSTILE}
    return Table(made, rows, [Finding(HOSTILE, Verdict.FAIL, f"{image}\x1b]0;owned\x07", net=net, perturbation=spec)])
