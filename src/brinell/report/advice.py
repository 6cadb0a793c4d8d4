"""What to do next, after a run: commands that can be copied."""

from __future__ import annotations

import math
import shlex

from brinell.core.lab import Table
from brinell.report.content import Content


def next_steps(table: Table, directory: str) -> list[str]:
    """Commands that follow from a run: finish it where cells are missing, and keep what it shows with a gate.

    Example:
        >>> row = {"net": "a", "perturbation": "clean", "name": "accuracy", "value": 0.9, "low": 0.857, "high": 0.95, "n": 50}
        >>> next_steps(Table({"networks": {"a": {}}, "perturbations": ["clean"]}, [row]), "runs/a")
        ["to keep this level: brinell gate runs/a --require 'accuracy >= 0.85'"]
    """
    content, steps = Content(table), []
    missing = sum(answer.status == "missing" for _, _, answer in content.gaps())
    if missing:
        steps.append(f"to finish: repeat the command of this run; {missing} cells are not measured yet")
    wanted = []
    for kind in ("clean", "corruption", "attack"):
        specs = [item.spec for net in content.networks if (item := content.hardest(net, kind)) is not None]
        spec = min(specs, key=lambda text: min(_low(content, net, text) for net in content.networks), default=None)
        least = min((_low(content, net, spec) for net in content.networks), default=0.0) if spec else 0.0
        if spec and least >= 0.01:
            cell = "accuracy" if kind == "clean" else f"accuracy[{spec}]"
            wanted.append(f"{cell} >= {math.floor(100 * least) / 100:g}")
    if wanted:
        steps.append(f"to keep this level: brinell gate {shlex.quote(directory)} --require {' '.join(map(shlex.quote, wanted))}")
    return steps


def _low(content: Content, net: str, spec: str) -> float:
    """The lower end of the accuracy of a cell; 0 where there is none."""
    answer = content.accuracy(net, spec)
    return answer.low or 0.0 if answer.ok else 0.0
