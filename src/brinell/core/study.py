"""Studies: a paper's experiment as a component that measures, and judges the paper's claims."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from brinell.core.component import Component


class Scale(StrEnum):
    """How large a study is run: seconds in a test, minutes on two cores, or as published."""

    SMOKE = "smoke"
    SMALL = "small"
    PAPER = "paper"


class Judgement(StrEnum):
    """What our numbers say of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Reference:
    """A paper: authors, year, title, link."""

    authors: str
    year: int
    title: str
    link: str


@dataclass(frozen=True)
class Claim:
    """One statement of a paper, in one sentence, and where it stands there."""

    name: str
    statement: str
    place: str = ""


class Study(Component):
    """Composes perturbations, probes and hardenings into a paper's experiment."""

    paper: ClassVar[Reference]
    claims: ClassVar[tuple[Claim, ...]] = ()

    def __call__(self, lab: Any, *, scale: Scale) -> Any:
        """Run on a lab; returns its table with one judgement per claim."""
        raise TypeError(f"{type(self).__name__} does not say how it is run")
