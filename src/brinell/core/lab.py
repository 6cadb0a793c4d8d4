"""What a lab offers to studies, and the table that measuring leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from brinell.core.component import Component, parse
from brinell.core.dataset import Dataset
from brinell.core.errors import SpecError
from brinell.core.measurement import Finding, Status, Verdict
from brinell.core.network import Network
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Certifier, Probe

Samples = dict[str, np.ndarray]
"""Per-sample columns of one cell in the order of ids: id, label, prediction, correct, finite, status, l0, l1, l2, linf."""


@dataclass
class Table:
    """Everything a run measured: tidy rows, findings, and the per-sample records behind them.

    Arguments:
        plan: what was asked for (`networks`, `data`, `perturbations`, `probes`, `summaries`, `seed`, all as text and digests).
        rows: one dict per measurement with the columns of `measurement.COLUMNS`. findings: outcomes of checks.
        load_samples: (net, perturbation spec) to samples. load_array: (row) to the array behind a reading, or None.

    Example:
        >>> Table({}, [{"net": "a", "perturbation": "clean", "name": "accuracy", "layer": "", "value": 0.9}]).value("accuracy")
        0.9
    """

    plan: dict[str, Any]
    rows: list[dict[str, Any]]
    findings: list[Finding] = field(default_factory=list)
    load_samples: Callable[[str, str], Samples] | None = None
    load_array: Callable[[Mapping[str, Any]], np.ndarray | None] | None = None
    keeps: Any = None  # whatever must live as long as the table does

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, **where: Any) -> list[dict[str, Any]]:
        """The rows whose columns have the given values; a perturbation or probe may be given as component or in any spelling."""
        where = {column: _canonical(value) if column in ("perturbation", "probe") else value for column, value in where.items()}
        return [row for row in self.rows if all(row.get(column) == value for column, value in where.items())]

    def row(self, name: str, **where: Any) -> dict[str, Any]:
        """The one row of a reading; `perturbation="clean"` and `layer=""` unless said otherwise.

        Raises:
            KeyError: there is none, or more than one.
        """
        wanted = {"perturbation": "clean", "layer": "", "name": name, **where}
        found = self.select(**wanted)
        if len(found) != 1:
            raise KeyError(f"{len(found)} rows with {', '.join(f'{k}={v!r}' for k, v in wanted.items())}; one was expected")
        return found[0]

    def value(self, name: str, **where: Any) -> float | None:
        """The value of `row(name, **where)`; None where its status is not ok."""
        return self.row(name, **where)["value"]

    @property
    def networks(self) -> list[str]:
        return list(self.plan["networks"])

    def perturbations(self) -> list[Perturbation]:
        """The perturbations of the plan, in its order."""
        return [parse(text, Perturbation) for text in self.plan["perturbations"]]

    def samples(self, net: str, perturbation: Perturbation | str) -> Samples:
        """Per-sample columns of one cell, in the order of ids; empty when the cell failed."""
        if self.load_samples is None:
            return {}
        return self.load_samples(net, (parse(perturbation) if isinstance(perturbation, str) else perturbation).spec())

    def array(self, row: Mapping[str, Any]) -> np.ndarray | None:
        """The per-unit or per-sample values behind a row, where there are any."""
        return self.load_array(row) if self.load_array else None

    def failed(self, net: str, perturbation: Perturbation) -> bool:
        """Did this cell fail as a whole (its points cannot be trusted)?"""
        return any(row["status"] == Status.FAILED and row["probe"] == "" for row in self.select(net=net, perturbation=perturbation.spec()))

    def certificates(self, net: str) -> list[tuple[Certifier, np.ndarray]]:
        """Each certifier of the plan with its per-sample verdicts (SAFE, UNSAFE, UNKNOWN) in the order of ids."""
        found = []
        for text in self.plan.get("probes", ()):
            probe = parse(text, Probe)
            if isinstance(probe, Certifier):
                for row in self.select(net=net, perturbation="clean", probe=probe.spec(), name="certified"):
                    array = self.array(row)
                    if array is not None:
                        found.append((probe, array))
        return found

    @property
    def worst(self) -> Verdict:
        """The gravest verdict among the findings."""
        order = [Verdict.PASS, Verdict.FLAG, Verdict.FAIL]
        return max((finding.verdict for finding in self.findings), key=order.index, default=Verdict.PASS)


def _canonical(spec: Component | str) -> str:
    """The spelling that rows use; a text that is no spec is left as it is, and matches what it equals."""
    try:
        return (parse(spec) if isinstance(spec, str) else spec).spec()
    except SpecError:
        return str(spec)


class LabProtocol(Protocol):
    """What studies may ask of a lab."""

    seed: int

    def measure(
        self,
        nets: Any,
        data: Dataset | Any,
        perturbations: Sequence[Any] = (),
        probes: Sequence[Any] = (),
        summaries: Sequence[Any] = (),
    ) -> Table: ...

    def harden(self, nets: Any, hardening: Any, data: Dataset | Any) -> dict[str, Network]: ...

    def part(self, name: str) -> LabProtocol: ...

    def map(
        self, function: Callable[[Any], dict[str, Any]], items: Iterable[Any], *, key: Callable[[Any], str]
    ) -> list[dict[str, Any]]: ...
