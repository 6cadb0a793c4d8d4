"""Suites: ready-made answers to "what should I measure?", as texts, so that the engine knows no item."""

from __future__ import annotations

from dataclasses import dataclass

from brinell.core.component import Component, items
from brinell.core.dataset import Dataset
from brinell.core.errors import SpecError
from brinell.core.perturbation import Attack, Corruption
from brinell.core.probe import Certifier, Probe
from brinell.core.summary import Summary

PROBES = ("accuracy", "calibration", "class_selectivity", "diagnostics", "duplicates", "eight_bit", "examples")
SUMMARIES = ("bound", "checks", "corruption_error")
QUICK_CORRUPTIONS = ("gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression")
NAMES = ("quick", "standard", "full")
TRIALS = {"escalation": 40, "binarisation": 40, "noise_search": 16}
"""Probes that try an attack out, and on how many samples of the standard suite."""
CERTIFIER = "crown(passes=100, threat={})"
"""What bounds R(T) from below: linear bounds where 100 passes a sample suffice for them, boxes elsewhere."""


@dataclass(frozen=True)
class Suite:
    """How many samples (None: all), and what is done to them and read off them."""

    limit: int | None
    perturbations: tuple[str, ...]
    probes: tuple[str, ...] = PROBES
    summaries: tuple[str, ...] = SUMMARIES


def suite(name: str, data: Dataset) -> Suite:
    """The suite of this name for these data.

    quick: 512 samples; noise control, five corruptions at severities 1, 3 and 5, FGSM and PGD-20 at Linf 2/255 and 8/255.
    standard: 2,000 samples; noise control, every graded corruption at every severity, FGSM and the strongest attack there is at Linf
    2/255, 4/255 and 8/255 and L2 0.25 and 0.5, and the certifier in each of these balls; the strongest attack at Linf 4/255 is itself tried
    out on some 40 samples (twice its budget, no bounds, planted examples; 10,000 random points on some 16), for 1 in 36 of all passes.
    full: all samples and all items that need no choice: every attack with a budget in every norm, over budgets; every minimum-norm
    attack once in each norm it has; grids of shifts and rotations.

    Corruptions of images are left out where the samples are no images.

    Raises:
        SpecError: there is no suite of that name.
    """
    if name not in NAMES:
        raise SpecError(f"no suite is called {name!r}; choose one of {', '.join(NAMES)}")
    image = len(data.shape) == 3 and data.domain == (0.0, 1.0)
    graded = [kind for kind, cls in items(Corruption).items() if "severity" in cls.model_fields] if image else []
    budgets = [("inf", "2/255"), ("inf", "4/255"), ("inf", "8/255"), ("2", "0.25"), ("2", "0.5")]
    small, medium, large, *round_ones = (_ball(data, *budget) for budget in budgets)
    if name == "quick":
        corruptions = [f"{kind}(severity={s})" for kind in QUICK_CORRUPTIONS if kind in graded for s in (1, 3, 5)]
        attacks = [attack for ball in (small, large) for attack in (f"fgsm(threat={ball})", f"pgd(steps=20, threat={ball})")]
        return Suite(512, (*_controls(small, large), *corruptions, *attacks))
    corruptions = [f"{kind}(severity={s})" for kind in graded for s in range(1, 6)]
    balls = [small, medium, large, *round_ones]
    if name == "standard":
        attacks = [attack for ball in balls for attack in (f"fgsm(threat={ball})", f"strongest(threat={ball})")]
        shares = {trial: min(1.0, round(count / min(2000, len(data)), 4)) for trial, count in TRIALS.items()}
        trials = [f"{trial}(attack=strongest(threat={medium}), share={share:g})" for trial, share in shares.items()]
        return Suite(2000, (*_controls(*balls), *corruptions, *attacks), (*PROBES, *trials, *map(CERTIFIER.format, balls)))
    budgets += [("inf", "1/255"), ("inf", "16/255"), ("2", "1"), ("1", "4"), ("1", "12")]
    attacks = [spec for cls in items(Attack).values() if issubclass(cls, Attack) for spec in _every(cls, data, budgets)]
    attacks += ["spatial"] if image else []
    every = [_ball(data, *budget) for budget in budgets]
    probes = (*_all(Probe, medium), *map(CERTIFIER.format, every))
    return Suite(None, (*_controls(*every), *corruptions, *attacks), probes, _all(Summary, medium))


def _all(kind: type[Component], ball: str) -> tuple[str, ...]:
    """All items of a kind but certifiers, which need a ball each; those that need an attack get one."""
    found = {name: cls for name, cls in items(kind).items() if not issubclass(cls, Certifier)}
    needs = {name: {field for field, info in cls.model_fields.items() if info.is_required()} for name, cls in found.items()}
    given = {name: f"{name}(attack=pgd(steps=20, threat={ball}))" if fields else name for name, fields in needs.items()}
    return tuple(text for name, text in given.items() if needs[name] <= {"attack"})


def _every(cls: type[Attack], data: Dataset, budgets: list[tuple[str, str]]) -> list[str]:
    """An attack in every ball it can search; none where it is built around other attacks, or needs a choice."""
    if cls.model_fields["threat"].default is None or any(field.is_required() for field in cls.model_fields.values()):
        return []
    mine = [(f"{norm:g}", "inf") for norm in cls.has_norms] if cls.unbounded else budgets
    return [f"{cls.name}(threat={_ball(data, norm, eps)})" for norm, eps in mine if float(norm) in cls.has_norms]


def _controls(*balls: str) -> list[str]:
    return [f"{noise}(threat={ball})" for ball in balls for noise in ("uniform_noise", "normal_noise")]


def _ball(data: Dataset, norm: str, eps: str) -> str:
    low, high = data.domain
    domain = "" if (low, high) == (0.0, 1.0) else f", low={low!r}, high={high!r}"
    return f"ball(norm={norm}, eps={eps}{domain})"
