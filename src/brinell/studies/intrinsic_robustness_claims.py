"""What the study of intrinsic robustness judges its claims by, and what it shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brinell.core.measurement import Reading
from brinell.core.study import Claim, Curve, Figure, Verdict, judge_all, judge_difference, judge_range
from brinell.summary.agreement import spearman

NATURAL, PENALISED = "natural", "gradient penalty"
MARGIN = 0.1
"""Networks are ranked only if their clean accuracies differ by no more."""
STABLE = 0.95
"""An order is stable where its rank correlation with that of the dearest measurement is at least this."""
SAME = 1e-9

Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """All numbers of one data set.

    Arguments:
        corpus, budgets: its name and the radii of adversarial training. rows: one for each network. battery: what was asked. changes: of
            rescaled networks. agreements: of each measure with robust accuracy, over the networks that can be ranked.
    """

    corpus: str
    budgets: tuple[float, float]
    rows: list[Row]
    battery: Any
    changes: list[dict[str, Any]]
    agreements: dict[str, Reading]

    @property
    def trainings(self) -> tuple[str, ...]:
        """In the order that robustness is expected to have."""
        return NATURAL, PENALISED, *(f"adversarial {eps:.3g}" for eps in self.budgets)

    def column(self, name: str, rows: Iterable[Row] | None = None) -> np.ndarray:
        """The numbers of one name over the networks; what has no answer is NaN."""
        return np.array([row.get(name, np.nan) for row in (self.rows if rows is None else rows)], dtype=float)

    def seeds(self) -> Iterator[list[Row]]:
        """The networks of each seed that can be ranked."""
        kept = comparable(self.rows)
        for seed in sorted({row["seed"] for row in kept}):
            yield [row for row in kept if row["seed"] == seed]

    def steps(self, name: str, better: str, worse: str, change: Callable[[float, float], float]) -> list[float]:
        """`change` of one number from one training to another, for each structure and seed."""
        place = {(row["structure"], row["seed"], row["training"]): row for row in self.rows}
        pairs = [(place[key], place.get((*key[:2], better))) for key in place if key[2] == worse]
        return [change(up[name], down[name]) for down, up in pairs if up is not None]

    @property
    def left_out(self) -> str:
        """How many networks are not ranked, and why."""
        lost = len(self.rows) - len(comparable(self.rows))
        return f"{lost} of {len(self.rows)} networks are not ranked: their clean accuracy lies more than {MARGIN:g} below the best one's."


def comparable(rows: list[Row]) -> list[Row]:
    """The networks whose clean accuracy comes within `MARGIN` of the best one's."""
    best = max((row["clean"] for row in rows), default=0.0)
    return [row for row in rows if row["clean"] >= best - MARGIN]


def log_ratio(a: float, b: float) -> float:
    """log(a / b), NaN where a number is missing or not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.log(a) - np.log(b)) if a > 0 and b > 0 else np.nan


def consistency(columns: Sequence[np.ndarray]) -> float:
    """The mean rank correlation over all pairs of orders; one in which all networks are equal agrees with none (0)."""
    found = [float(spearman(a, b)) for a, b in itertools.combinations(columns, 2)]
    return float(np.mean(np.nan_to_num(found))) if found else np.nan


def verdicts(claims: tuple[Claim, ...], measured: list[Measured]) -> Iterator[Verdict]:
    """One for each claim; a claim about several data sets holds if it holds on each."""
    for claim in claims:
        parts: dict[str, Verdict] = {}
        for m in measured:
            parts |= {f"{m.corpus}{name and ': '}{name}": part for name, part in JUDGED[claim.name](claim, m).items()}
        yield next(iter(parts.values())) if len(parts) == 1 else judge_all(claim, parts)


def _order(claim: Claim, m: Measured) -> dict[str, Verdict]:
    measure = "log ratio of normalised median psi, over structures and seeds"
    return {
        f"{worse} to {better}": judge_difference(claim, m.steps("psi normalised", better, worse, log_ratio), measure)
        for worse, better in itertools.pairwise(m.trainings)
    }


def _penalty(claim: Claim, m: Measured) -> dict[str, Verdict]:
    gains = m.steps("psi normalised", PENALISED, NATURAL, log_ratio)
    return {"": judge_difference(claim, gains, "log ratio of normalised median psi (log 1.5 = 0.405)", least=float(np.log(1.5)))}


def _agreement(layer: str) -> Callable[[Claim, Measured], dict[str, Verdict]]:
    def judged(claim: Claim, m: Measured) -> dict[str, Verdict]:
        measure, found = "Spearman correlation over networks; interval bootstrapped over images", m.agreements.get(f"psi {layer}")
        if found is None or found.value is None:
            return {"": judge_range(claim, None, None, None, measure, why=found.reason if found else "")}
        return {"": judge_range(claim, found.value, found.low, found.high, measure, least=0.8, n=found.n)}

    return judged


def _mean(claim: Claim, m: Measured) -> dict[str, Verdict]:
    lags = []
    for rows in m.seeds():
        robust = m.column("robust", rows)
        lags.append(float(spearman(m.column("psi raw", rows), robust) - spearman(m.column("psi_mean raw", rows), robust)))
    return {"": judge_difference(claim, lags, "rank correlation of the median minus that of the mean, over seeds")}


def orders(m: Measured, rows: list[Row]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The columns by which psi at its settings, and accuracy under the attacks, rank networks."""
    budgets = [f"psi normalised eps {radius:.3g}" for radius in m.battery.radii]
    psi = [m.column(name, rows) for name in ("psi normalised", *budgets, *(f"psi normalised {k}" for k in list(m.battery.psi)[1:]))]
    accuracy = [m.column(f"accuracy {name}", rows) for name in m.battery.named]
    return psi, [m.column("robust", rows), *accuracy]


def _settings(claim: Claim, m: Measured) -> dict[str, Verdict]:
    gaps, means = [], []
    for rows in m.seeds():
        both = [consistency(columns) for columns in orders(m, rows)]
        gaps.append(both[0] - both[1])
        means.append(both)
    why = "no network was measured"
    if means:
        psi, accuracy = np.mean(means, 0)
        why = f"mean rank correlation between settings: psi {psi:.3f}, accuracy under attacks {accuracy:.3f}"
    return {"": judge_difference(claim, gaps, "mean rank correlation between settings, psi minus accuracy, over seeds", why=why)}


def _unmoved(claim: Claim, m: Measured, what: str, moved: str, still: tuple[str, ...]) -> dict[str, Verdict]:
    changes = [change for change in m.changes if None not in change.values()]  # a constant network has no psi to move
    if not changes:
        return {"": judge_range(claim, None, None, None, "relative change")}
    most = max(change[f"{what} {name}"] for change in changes for name in still)
    least = min(change[f"{what} {moved}"] for change in changes)
    n = len(changes)
    return {
        f"{' and '.join(still)} psi": judge_range(claim, most, most, most, "largest relative change, float64", most=SAME, n=n),
        moved: judge_range(claim, least, least, least, f"smallest relative change of {moved}", least=0.01, n=n),
    }


def passes_to_order(m: Measured, rows: list[Row]) -> tuple[float, float]:
    """Passes per image after which psi, and accuracy under PGD, rank the networks as their dearest measurement does; inf if never."""
    costs = []
    dear = {"psi": m.column("psi normalised", rows), "accuracy": m.column("robust", rows)}
    cheap = {
        "psi": {f"psi normalised {name}": m.battery.passes[name] for name in list(m.battery.psi)[1:]}
        | {"psi normalised": m.battery.passes["full"]},
        "accuracy": {f"accuracy PGD-{k} {m.battery.eps:.3g}": 2 * k + 1 for k in m.battery.s.pgd} | {"robust": m.battery.s.passes},
    }
    for kind, reference in dear.items():
        stable = [cost for name, cost in cheap[kind].items() if float(spearman(m.column(name, rows), reference)) >= STABLE]
        costs.append(min(stable, default=np.inf))
    return costs[0], costs[1]


def _cost(claim: Claim, m: Measured) -> dict[str, Verdict]:
    pairs = [passes_to_order(m, rows) for rows in m.seeds()]
    why = "; ".join(f"psi {a:g}, accuracy {b:g} passes per image" for a, b in pairs)
    ratios = [log_ratio(b, a) for a, b in pairs]
    return {"": judge_difference(claim, ratios, "log ratio of passes, accuracy over psi, over seeds", least=-1e-9, why=why)}


def _planes(claim: Claim, m: Measured) -> dict[str, Verdict]:
    ratios = [log_ratio(row["lost gradient"], row["lost random"]) for row in m.rows if row["training"] == NATURAL]
    measure = "log ratio of the share with S < 0, natural networks (log 2 = 0.693)"
    return {"": judge_difference(claim, ratios, measure, least=float(np.log(2)))}


def _lost(claim: Claim, m: Measured) -> dict[str, Verdict]:
    measure = "share of the plane with S < 0, the worse training minus the better"
    return {
        f"{worse} to {better}": judge_difference(claim, m.steps("lost gradient", better, worse, lambda up, down: down - up), measure)
        for worse, better in itertools.pairwise(m.trainings)
    }


def _saturation(claim: Claim, m: Measured) -> dict[str, Verdict]:
    rows = [row for row in m.rows if "saturated louder" in row]
    loud, plain = m.column("saturated louder", rows), m.column("saturated", rows)
    return {
        "share": judge_difference(claim, list(loud), "share of cells with cross-entropy below 1e-6, logits times 10", least=0.4),
        "growth": judge_difference(claim, list(loud - 2 * plain), "that share minus twice the one before"),
        "margin": judge_difference(claim, list(m.column("distinct louder", rows)), "share of margins that differ", least=0.99),
    }


def _finite_mean(values: np.ndarray) -> float:
    """NaN where there is no finite value: the psi of a network that answers a constant is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


JUDGED: dict[str, Callable[[Claim, Measured], dict[str, Verdict]]] = {
    "order": _order,
    "penalty": _penalty,
    "agreement": _agreement("raw"),
    "agreement_normalised": _agreement("normalised"),
    "mean": _mean,
    "settings": _settings,
    "rescaled_layers": lambda claim, m: _unmoved(claim, m, "layer", "sharpness", ("raw", "normalised")),
    "scaled_logits": lambda claim, m: _unmoved(claim, m, "logits", "raw", ("normalised",)),
    "cost": _cost,
    "planes": _planes,
    "lost": _lost,
    "saturation": _saturation,
}


def figures(measured: list[Measured]) -> Iterator[Figure]:
    """Psi against robust accuracy, over radii, and what each measure agrees with."""
    for m in measured:
        groups = {how: [row for row in m.rows if row["training"] == how] for how in m.trainings}
        groups = {how: rows for how, rows in groups.items() if rows}
        for layer in ("normalised", "raw"):
            points = {how: sorted((row[f"psi {layer}"], row["robust"]) for row in rows) for how, rows in groups.items()}
            yield Figure(
                f"{m.corpus}: psi and robust accuracy", f"median psi, {layer}", "accuracy under the strongest attack",
                tuple(Curve(how, *zip(*pairs, strict=True)) for how, pairs in points.items()),
                "Each point is a network; psi is an upper bound, and so is robust accuracy.",
            )  # fmt: skip
        low, high = m.battery.radii
        radii = {low: f"psi normalised eps {low:.3g}", m.budgets[0]: "psi normalised", high: f"psi normalised eps {high:.3g}"}
        means = {how: tuple(_finite_mean(m.column(name, rows)) for name in radii.values()) for how, rows in groups.items()}
        yield Figure(
            f"{m.corpus}: psi over radii", "eps", "median psi, normalised",
            tuple(Curve(how, tuple(radii), values) for how, values in means.items()), "Mean over structures and seeds, from one sweep.",
        )  # fmt: skip
        shown = sorted(((r.value, name, r) for name, r in m.agreements.items() if r.value is not None), reverse=True)
        yield Figure(
            f"{m.corpus}: agreement with robust accuracy", "measure", "Spearman correlation",
            tuple(Curve(name, (float(at),), (value,), (r.low,), (r.high,)) for at, (value, name, r) in enumerate(shown)),
            "Over the networks that can be ranked; intervals are bootstrapped over images.",
        )  # fmt: skip
