"""Intrinsic robustness: does psi, which asks no label and no attack, put networks in the order of their robustness?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from brinell.core.component import parse
from brinell.core.dataset import Dataset, load_dataset
from brinell.core.hardening import Hardening
from brinell.core.lab import Table
from brinell.core.measurement import Finding
from brinell.core.network import Network
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Probe
from brinell.core.study import Claim, Outcome, Reference, Scale, Study
from brinell.core.threat import Ball
from brinell.harden.adversarial import Adversarial
from brinell.harden.fit import Fit
from brinell.harden.gradient_penalty import GradientPenalty
from brinell.models.loading import load_network
from brinell.studies.intrinsic_robustness_claims import MARGIN, NATURAL, PENALISED, Measured, comparable, figures, verdicts
from brinell.studies.intrinsic_robustness_rescaling import louder, rescaling_numbers
from brinell.summary.agreement import Agreement


@dataclass(frozen=True)
class Corpus:
    """One data set of the study, its networks and their training.

    Arguments:
        name, train, test: sources. structures: specs of architectures. budgets: the two Linf radii of adversarial training; psi and
            robust accuracy are measured at the first. fit: the training. limit: training samples, 0 for all.
            strength: of the gradient penalty.
    """

    name: str
    train: str
    test: str
    structures: tuple[str, ...]
    budgets: tuple[float, float]
    fit: Fit
    limit: int = 0
    strength: float = 1.0


@dataclass(frozen=True)
class Settings:
    """What one scale of the study measures.

    Arguments:
        corpora: data and networks. seeds: of each. samples: test images. steps, restarts: of psi. cheaper: (steps, restarts) of cheaper
            searches, from the cheapest on. passes: of the strongest attack. pgd: step counts. images, grid: of the surfaces.
    """

    corpora: tuple[Corpus, ...]
    seeds: int
    samples: int
    steps: int = 50
    restarts: int = 5
    cheaper: tuple[tuple[int, int], ...] = ((5, 1), (10, 1), (20, 2))
    passes: int = 400
    pgd: tuple[int, ...] = (5, 10, 20, 50)
    images: int = 24
    grid: int = 21


LOUD = 10.0
"""By how much logits are multiplied to show what saturates."""
_FIT = Fit(epochs=30, batch_size=64, optimizer="adamw", lr=4e-3, weight_decay=0.0, schedule="cosine")
_DIGITS = Corpus(
    "digits", "digits(side=8, split=train)", "digits(side=8, split=test)",
    ("mlp(widths=(32,))", "mlp(widths=(128,))", "mlp(widths=(64, 64))", "small_cnn(pool=(1,), widths=(8, 16))"), (0.1, 0.2), _FIT,
)  # fmt: skip
_CIFAR = Corpus(
    "CIFAR-10", "cifar10(split=train)", "cifar10(split=test)", ("small_cnn", "resnet20", "resnet56", "resnet18"), (8 / 255, 16 / 255),
    Fit(epochs=100, batch_size=128, weight_decay=5e-4, schedule="cosine", shift=4, flip=True),
)  # fmt: skip
_MLPS = ("mlp(widths=(64,))", "mlp(widths=(128, 64))")


def _mnist(folder: str, limit: int, epochs: int) -> Corpus:
    train, test = (f"parquet('{folder}/{split}.parquet')" for split in ("train", "test"))
    return Corpus("MNIST", train, test, _MLPS, (0.1, 0.2), _FIT.replace(epochs=epochs, lr=2e-3), limit=limit)


SETTINGS = {
    Scale.SMOKE: Settings(
        (replace(_DIGITS, structures=("mlp(widths=(24,))", "mlp(widths=(48,))"), fit=_FIT.replace(epochs=25), limit=400),), seeds=1,
        samples=30, steps=10, restarts=2, cheaper=((5, 1),), passes=120, pgd=(5,), images=4, grid=9,
    ),
    Scale.SMALL: Settings((_DIGITS,), seeds=3, samples=150),
    Scale.PAPER: Settings((_DIGITS, _CIFAR), seeds=5, samples=1000, passes=3000, images=64, grid=41),
}  # fmt: skip


class IntrinsicRobustness(Study, name="intrinsic_robustness"):
    """Trains networks naturally and three ways more robustly, and holds psi against robust accuracy, attack settings and rescalings.

    Every structure is trained naturally, with an input-gradient penalty, and adversarially at two budgets, with several seeds. Each
    network is asked for psi (probe `psi`, raw and with normalised logits, at several radii and costs), the small-eps limit (`fisher`),
    other cheap measures (`smoothness`), its accuracy under FGSM and PGD at several budgets and norms, under the strongest attack, the
    distance that a minimum-norm attack finds, and for decision and cross-entropy surfaces (`surface`). Rescaled twins of the networks, in
    float64, show which measures a change without effect can move.

    Networks are ranked by psi only among those whose clean accuracy comes within `MARGIN` of the best one's: psi knows nothing of accuracy.

    No table of the paper was found in what was read of it, so the claims are held to their direction; thresholds are ours.

    Arguments:
        seeds, samples: replace those of the scale; 0 keeps them. mnist: a folder with train.parquet and test.parquet; at small and paper
            scale MNIST is part of the study where they exist, and a note says so where they do not. data: names of the data sets to
            take, () for all.

    References: Yu, Qin, Liu, Zhao, Wang & Chen (2019), "Interpreting and Evaluating Neural Network Robustness", IJCAI, arXiv 1905.04270;
        Yu, Liu, Wang, Zhao & Chen (2018), "Interpreting Adversarial Robustness: A View from Decision Surface in Input Space", arXiv
        1810.00144.

    Example:
        >>> IntrinsicRobustness(seeds=5).spec()
        'intrinsic_robustness(seeds=5)'
    """

    paper: ClassVar[Reference] = Reference(
        "Fuxun Yu, Zhuwei Qin, Chenchen Liu, Liang Zhao, Yanzhi Wang, Xiang Chen", 2019,
        "Interpreting and Evaluating Neural Network Robustness", "https://arxiv.org/abs/1905.04270",
    )  # fmt: skip
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("order", "Normalised median psi grows from natural to penalised to adversarial training at the smaller and larger budget."),
        Claim("penalty", "A gradient penalty raises normalised median psi by half or more."),
        Claim(
            "agreement",
            "Median psi follows robust accuracy under the strongest attack across structures: Spearman 0.8 or more.",
            "abstract",
        ),
        Claim("agreement_normalised", "So does normalised median psi.", "abstract"),
        Claim("mean", "The mean of psi follows robust accuracy less than its median.", "ours"),
        Claim("settings", "Networks keep their order by psi under other settings better than by accuracy under other attacks.", "abstract"),
        Claim("rescaled_layers", "A function-preserving rescaling of layers leaves psi and moves sharpness.", "introduction"),
        Claim("scaled_logits", "A factor of the logits leaves normalised psi and moves raw psi.", "introduction"),
        Claim("cost", "A stable order by psi costs no more passes than one by accuracy under attack.", "abstract"),
        Claim("planes", "The margin's gradient direction loses twice the share of the plane that random directions do.", "abstract"),
        Claim("lost", "The share lost on that plane falls from natural to penalised to adversarial training.", "abstract"),
        Claim("saturation", "With large logits the cross-entropy surface is flat where the decision surface is not.", "abstract"),
    )

    seeds: int = Field(default=0, ge=0)
    samples: int = Field(default=0, ge=0)
    mnist: str = "../shared/data/mnist"
    data: tuple[str, ...] = ()

    def settings(self, scale: Scale) -> tuple[Settings, tuple[str, ...]]:
        """Those of the scale with the fields that are given in their place, and what must be said of them."""
        s, notes = SETTINGS[scale], ()
        if scale is not Scale.SMOKE:
            here = all((Path(self.mnist) / f"{split}.parquet").is_file() for split in ("train", "test"))
            if here:
                s = replace(s, corpora=(*s.corpora, _mnist(self.mnist, *((4000, 8) if scale is Scale.SMALL else (0, 30)))))
            else:
                notes = (f"MNIST is not part of this run: {self.mnist} holds no train.parquet and test.parquet.",)
        given = {name: value for name, value in (("seeds", self.seeds), ("samples", self.samples)) if value}
        chosen = tuple(corpus for corpus in s.corpora if not self.data or corpus.name in self.data)
        return replace(s, corpora=chosen, **given), notes

    def __call__(self, lab: Any, *, scale: Scale) -> Outcome:
        """Train, measure and judge. Every network and cell is kept by the lab, so an interrupted study goes on."""
        s, notes = self.settings(scale)
        measured = [self._measured(lab, s, corpus) for corpus in s.corpora]
        rows = [row for found in measured for row in found.rows]
        notes += tuple(f"{found.corpus}: {found.left_out}" for found in measured)
        return Outcome(self.spec(), scale, self.paper, tuple(verdicts(self.claims, measured)), rows, tuple(figures(measured)), notes)

    def _measured(self, lab: Any, s: Settings, corpus: Corpus) -> Measured:
        train, test = load_dataset(corpus.train), load_dataset(corpus.test)
        train, test = train.limit(corpus.limit or None, 0), test.limit(s.samples, 0)
        seeds = range(lab.seed, lab.seed + s.seeds)
        nets = {
            f"{structure}, {how}, seed {seed}": net
            for structure in corpus.structures
            for seed in seeds
            for how, net in _trained(lab, corpus, structure, train, seed)
        }
        battery, place = Battery(s, corpus.budgets[0]), corpus.name.lower()
        metric = lab.part(f"{place}-metric").measure(nets, test, battery.reference, battery.probes, [f"agreement(margin={MARGIN!r})"])
        attacks = lab.part(f"{place}-attacks").measure(nets, test, battery.attacks, ["accuracy"])
        loud = {f"{name}, louder": louder(net, LOUD) for name, net in nets.items() if f", {NATURAL}," in name}
        surfaces = lab.part(f"{place}-surfaces").measure({**nets, **loud}, test, [], battery.surfaces)
        x, y = test.x(slice(0, 40)), test.labels(slice(0, 40))
        asked = [
            {"net": net, "x": x, "y": y, "eps": corpus.budgets[0], "steps": min(s.steps, 20), "restarts": min(s.restarts, 3)}
            for name, net in nets.items() if name.endswith(f"seed {lab.seed}")
        ]  # fmt: skip
        changes = lab.part(f"{place}-rescaling").map(
            rescaling_numbers, asked, key=lambda item: f"{item['net'].digest} {test.digest} {item['steps']} {item['restarts']} v2"
        )
        rows = [battery.row(corpus.name, name, metric, attacks, surfaces) for name in nets]
        kept = comparable(rows)
        ball = Ball(eps=corpus.budgets[0])
        found = Agreement(margin=MARGIN, threat=ball)(_only(metric, {row["network"] for row in kept}))
        readings = {item[1].layer.partition(" |")[0]: item[1] for item in found if not isinstance(item, Finding)}
        return Measured(corpus.name, corpus.budgets, rows, battery, changes, readings)


def _trained(lab: Any, corpus: Corpus, structure: str, train: Dataset, seed: int) -> Iterable[tuple[str, Network]]:
    start = load_network(structure, shape=train.shape, classes=len(train.classes), seed=seed)
    hows: dict[str, Hardening] = {NATURAL: corpus.fit, PENALISED: GradientPenalty(strength=corpus.strength, fit=corpus.fit)}
    for eps in corpus.budgets:
        attack = parse(f"pgd(steps=7, goal=maximise(cross_entropy), threat=ball(eps={eps!r}))", Perturbation)
        hows[f"adversarial {eps:.3g}"] = Adversarial(attack=attack, fit=corpus.fit)
    for how, hardening in hows.items():
        yield how, lab.harden({f"{structure}, {how}": start}, hardening, train, seed=seed)[f"{structure}, {how}"]


class Battery:
    """What every network is asked, and how the answers are read off the tables."""

    def __init__(self, s: Settings, eps: float) -> None:
        self.s, self.eps = s, eps
        self.radii = (0.5 * eps, 2 * eps)
        ball = f"threat=ball(eps={eps!r})"
        full = f"psi(steps={s.steps}, restarts={s.restarts}, curve={self.radii!r}, {ball})"
        self.psi = {"full": full} | {f"{k} x {r}": f"psi(steps={k}, restarts={r}, {ball})" for k, r in s.cheaper}
        self.psi = {name: parse(text, Probe).spec() for name, text in self.psi.items()}
        self.passes = {"full": 2 * s.restarts * (2 * s.steps + 1)} | {f"{k} x {r}": 2 * r * (2 * k + 1) for k, r in s.cheaper}
        self.probes = [*self.psi.values(), "accuracy", "fisher", f"smoothness({ball})"]
        self.strongest = parse(f"strongest(passes={s.passes}, {ball})", Perturbation).spec()
        self.distance = parse("fmn(steps=40, threat=ball(eps=inf, norm=inf))", Perturbation).spec()
        self.reference = [self.strongest, self.distance]
        budgets = (*self.radii, eps)
        named = {f"FGSM {e:.3g}": f"fgsm(threat=ball(eps={e!r}))" for e in budgets}
        named |= {f"PGD-{k} {eps:.3g}": f"pgd(steps={k}, {ball})" for k in s.pgd}
        named |= {f"PGD-{s.pgd[-1]} {e:.3g}": f"pgd(steps={s.pgd[-1]}, threat=ball(eps={e!r}))" for e in self.radii}
        named["PGD L2"] = f"pgd(steps={s.pgd[-1]}, threat=ball(eps={6 * eps!r}, norm=2))"
        self.named = {name: parse(text, Perturbation).spec() for name, text in named.items()}
        self.attacks = list(self.named.values())
        plane = f"adaptive=False, grid={s.grid}, images={s.images}, ball=ball(eps={3 * eps!r})"
        self.planes = {kind: parse(f"surface(plane={kind}, {plane})", Probe).spec() for kind in ("gradient", "random")}
        self.surfaces = list(self.planes.values())

    def row(self, corpus: str, name: str, metric: Table, attacks: Table, surfaces: Table) -> dict[str, Any]:
        """All numbers of one network."""
        structure, how, seed = name.rsplit(", ", 2)
        row: dict[str, Any] = {"data": corpus, "network": name, "structure": structure, "training": how, "seed": int(seed.split()[1])}
        row["clean"], row["robust"] = (_value(metric, name, "accuracy", p, "accuracy") for p in ("clean", self.strongest))
        for layer in ("raw", "normalised"):
            for reading in ("psi", "psi_inverse_mean", "psi_mean", "psi_trimmed_mean", "psi_capped", "psi_single"):
                row[f"{reading} {layer}"] = _value(metric, name, reading, "clean", self.psi["full"], layer)
            for radius in self.radii:
                row[f"psi {layer} eps {radius:.3g}"] = _value(
                    metric, name, "psi_curve", "clean", self.psi["full"], f"{layer} eps={radius:.6g}"
                )
            for cheap in list(self.psi)[1:]:
                row[f"psi {layer} {cheap}"] = _value(metric, name, "psi", "clean", self.psi[cheap], layer)
            row[f"psi_limit_linf {layer}"] = _value(metric, name, "psi_limit_linf", "clean", "fisher", layer)
        row["scale"] = _value(metric, name, "psi_scale", "clean", self.psi["full"])
        for reading in ("lipschitz", "linear_distance", "curvature"):
            row[reading] = _value(metric, name, reading)
        row["distance"] = float(np.median(np.where((found := metric.samples(name, self.distance))["correct"], np.inf, found["linf"])))
        row |= {f"accuracy {label}": _value(attacks, name, "accuracy", text) for label, text in self.named.items()}
        for kind, spec in self.planes.items():
            margins = _heights(surfaces, name, spec, "margin")
            row[f"lost {kind}"] = float((margins[_right(margins)] < 0).mean()) if _right(margins).any() else np.nan
        if f"{name}, louder" in surfaces.networks:
            row |= self._saturation(surfaces, name)
        return row

    def _saturation(self, surfaces: Table, name: str) -> dict[str, float]:
        """Shares of grid cells at which the cross-entropy is below 1e-6, and of margins that differ, without and with large logits."""
        found: dict[str, float] = {}
        for which, net in (("", name), (" louder", f"{name}, louder")):
            losses = _heights(surfaces, net, self.planes["gradient"], "cross_entropy")
            margins = _heights(surfaces, net, self.planes["gradient"], "margin")
            found[f"saturated{which}"] = float((losses < 1e-6).mean())
            found[f"distinct{which}"] = float(np.mean([len(np.unique(part)) / part.size for part in margins]))
        return found


def _only(table: Table, networks: set[str]) -> Table:
    """The table of some of its networks."""
    plan = {**table.plan, "networks": {name: about for name, about in table.plan["networks"].items() if name in networks}}
    return replace(table, plan=plan, rows=[row for row in table.rows if row["net"] in networks])


def _value(table: Table, net: str, name: str, perturbation: str = "clean", probe: str = "", layer: str = "") -> float:
    """One reading; NaN where it has no answer."""
    where = {"probe": probe} if probe else {}
    value = table.value(name, net=net, perturbation=perturbation, layer=layer, **where)
    return np.nan if value is None else float(value)


def _heights(surfaces: Table, net: str, spec: str, layer: str) -> np.ndarray:
    """(m, g, g) heights of a surface."""
    found = surfaces.array(surfaces.row("surface", net=net, probe=spec, layer=layer))
    return np.zeros((0, 1, 1)) if found is None else np.asarray(found, dtype=np.float64)


def _right(margins: np.ndarray) -> np.ndarray:
    """Which images are classified correctly: S > 0 in the middle of the plane."""
    middle = margins.shape[1] // 2
    return margins[:, middle, middle] > 0
