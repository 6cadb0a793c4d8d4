"""Suites: ready-made answers to "what should I measure?", as texts, so that the engine knows no item."""

from __future__ import annotations

from dataclasses import dataclass

from brinell.core.component import items
from brinell.core.dataset import Dataset
from brinell.core.errors import SpecError
from brinell.core.perturbation import Attack, Corruption
from brinell.core.probe import Probe
from brinell.core.summary import Summary

PROBES = ("accuracy", "calibration", "class_selectivity", "diagnostics", "examples")
SUMMARIES = ("bound", "checks", "corruption_error")
QUICK_CORRUPTIONS = ("gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression")
NAMES = ("quick", "standard", "full")


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
    standard: 2,000 samples; noise control, every graded corruption at every severity, FGSM, and PGD-50 with two restarts on both
    losses at Linf 2/255, 4/255 and 8/255 and L2 0.25 and 0.5 (the strongest attack there is so far).
    full: all samples and all items; every attack in every norm, over budgets.

    Corruptions of images are left out where the samples are no images.

    Raises:
        SpecError: there is no suite of that name.
    """
    if name not in NAMES:
        raise SpecError(f"no suite is called {name!r}; choose one of {', '.join(NAMES)}")
    image = len(data.shape) == 3 and data.domain == (0.0, 1.0)
    graded = [kind for kind, cls in items(Corruption).items() if "severity" in cls.model_fields] if image else []
    small, medium, large = (_ball(data, "inf", f"{level}/255") for level in (2, 4, 8))
    if name == "quick":
        corruptions = [f"{kind}(severity={s})" for kind in QUICK_CORRUPTIONS if kind in graded for s in (1, 3, 5)]
        attacks = [attack for ball in (small, large) for attack in (f"fgsm(threat={ball})", f"pgd(steps=20, threat={ball})")]
        return Suite(512, (*_controls(small, large), *corruptions, *attacks))
    corruptions = [f"{kind}(severity={s})" for kind in graded for s in range(1, 6)]
    balls = [small, medium, large, _ball(data, "2", "0.25"), _ball(data, "2", "0.5")]
    if name == "standard":
        attacks = [attack for ball in balls for attack in (f"fgsm(threat={ball})", *_strong(ball))]
        return Suite(2000, (*_controls(*balls), *corruptions, *attacks))
    balls += [_ball(data, norm, eps) for norm, eps in (("inf", "1/255"), ("inf", "16/255"), ("2", "1"), ("1", "4"), ("1", "12"))]
    plain = [kind for kind, cls in items(Attack).items() if "threat" in cls.model_fields and cls.model_fields["threat"].default is not None]
    attacks = [f"{kind}(threat={ball})" for ball in balls for kind in plain] + [spec for ball in balls for spec in _strong(ball)]
    return Suite(None, (*_controls(*balls), *corruptions, *attacks), tuple(items(Probe)), tuple(items(Summary)))


def _strong(ball: str) -> list[str]:
    return [f"pgd(steps=50, restarts=2, loss={loss}, threat={ball})" for loss in ("cross_entropy", "margin")]


def _controls(*balls: str) -> list[str]:
    return [f"{noise}(threat={ball})" for ball in balls for noise in ("uniform_noise", "normal_noise")]


def _ball(data: Dataset, norm: str, eps: str) -> str:
    low, high = data.domain
    domain = "" if (low, high) == (0.0, 1.0) else f", low={low!r}, high={high!r}"
    return f"ball(norm={norm}, eps={eps}{domain})"
