"""Where a perturbation stands among its like: its family, and its size on the scale that the family shares."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from brinell.core.component import items, parse, walk
from brinell.core.errors import SpecError
from brinell.core.perturbation import Attack, Corruption, Perturbation
from brinell.core.threat import Ball

Kind = Literal["clean", "corruption", "attack", "control", "nearest", "frequency", "other"]
NORMS = {math.inf: "Linf", 2.0: "L2", 1.0: "L1"}


@dataclass(frozen=True)
class Grade:
    """A perturbation as reports group it.

    Arguments:
        spec: its text. kind: `corruption` is a graded one, `control` is noise in a ball, `nearest` is an attack on a ball without end (it
            looks for the smallest step), `frequency` is noise of one frequency, `other` has no size to be ordered by.
        family: the text without its size. scale: `severity`, or the norm of the ball. size: the severity or eps; shown: the same
            as it was written. black_box: the attack says that it takes no gradients (a class attribute `black_box`).
        group: what a graded corruption calls its family: noise, blur, weather, digital. known: this installation can read the text.
    """

    spec: str
    kind: Kind
    family: str
    scale: str = ""
    size: float = 0.0
    shown: str = ""
    black_box: bool = False
    group: str = ""
    known: bool = True

    @property
    def brief(self) -> str:
        """The name without its settings, and the size: `contrast (severity 2)`, `pgd (Linf 8/255)`."""
        name = self.family.partition("(")[0].partition(" ")[0]
        return f"{name} ({self.scale} {self.shown})" if self.scale else self.spec

    @property
    def title(self) -> str:
        """The family and the size in words."""
        if self.kind == "corruption":
            return f"{self.family} at severity {self.shown}"
        return f"{self.family} at {self.scale} eps {self.shown}" if self.scale else self.spec


def grade(spec: str) -> Grade:
    """The grade of a perturbation's text; a text that no longer parses (a third party's item, say) has kind `other`.

    Example:
        >>> grade("gaussian_noise(severity=5)").title, grade("fgsm(threat=ball(eps=8/255, norm=inf))").title
        ('gaussian_noise at severity 5', 'fgsm at Linf eps 8/255')
    """
    try:
        component = parse(spec, Perturbation)
    except SpecError:
        return Grade(spec, "other", spec, known=False)
    if component.name == "clean":
        return Grade(spec, "clean", spec)
    if component.name == "fourier_basis":
        return Grade(spec, "frequency", component.name)
    severity = getattr(component, "severity", None)
    if isinstance(severity, int | float):
        family = _without(component.spec(), r"\bseverity=[^,()]+")
        return Grade(spec, "corruption", family, "severity", severity, str(severity), group=str(getattr(component, "family", "") or ""))
    if isinstance(component.threat, Ball):
        ball = component.threat
        family = _without(component.spec(), rf"\bthreat={re.escape(ball.spec())}")
        if not math.isfinite(ball.eps):
            return Grade(spec, "nearest" if isinstance(component, Attack) else "other", family, NORMS[ball.norm])
        if (ball.low, ball.high) != (0, 1):
            family += f" in [{ball.low:g}, {ball.high:g}]"
        kind = "attack" if isinstance(component, Attack) else "control"
        black_box = kind == "attack" and any(getattr(part, "black_box", False) for part in walk(component))
        return Grade(spec, kind, family, *size_of(ball), black_box)
    return Grade(spec, "other", spec)


def common() -> list[str]:
    """The graded corruptions of this package that count in means; none where an installed item cannot be imported."""
    try:
        found = items(Corruption).items()
    except SpecError:
        return []
    return [
        name
        for name, cls in found
        if "severity" in cls.model_fields and getattr(cls, "main", True) and cls.__module__.startswith("brinell.")
    ]


def size_of(ball: Ball) -> tuple[str, float, str]:
    """The scale, the size and the written size of a ball.

    Example:
        >>> size_of(Ball(eps=0.5, norm=2))
        ('L2', 0.5, '0.5')
    """
    written = re.search(r"\beps=([^,)]+)", ball.spec())
    return NORMS[ball.norm], ball.eps, written.group(1) if written else f"{ball.eps:g}"


def _without(spec: str, argument: str) -> str:
    """The spec with the argument that matches a pattern taken out."""
    text = re.sub(argument, "", spec, count=1)
    text = re.sub(r"\(\s*,\s*", "(", text)
    return re.sub(r",\s*(?=[,)])", "", text).replace("()", "")
