"""Class selectivity and the two kinds of robustness: does selectivity trade average case against worst case?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from brinell.core.component import parse
from brinell.core.dataset import Dataset, load_dataset
from brinell.core.hardening import Hardening
from brinell.core.lab import Table
from brinell.core.network import Network
from brinell.core.perturbation import Perturbation
from brinell.core.study import Claim, Curve, Figure, Outcome, Reference, Scale, Study, Verdict, judge_correlation, judge_difference
from brinell.harden.adversarial import Adversarial
from brinell.harden.fit import Fit
from brinell.harden.selectivity import Selectivity
from brinell.models.loading import load_network

MAIN = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog",
    "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The fifteen types of the corruption benchmark."""


@dataclass(frozen=True)
class Settings:
    """What one scale of the study trains and measures.

    Arguments:
        train, test: specs of the data. limit: of samples, 0 for all. net: the architecture. fit: the training. alphas, seeds: of
            the sweep. corruptions, severities: of the average case. linf, l2: budgets of the worst case. steps: of its attack. length:
            L2 norm at which dimensionalities are compared. samples: for the intrinsic dimensions. strongest: attack with `strongest` too.
    """

    train: str
    test: str
    net: str
    fit: Fit
    alphas: tuple[float, ...]
    seeds: int
    corruptions: tuple[str, ...] = MAIN
    severities: tuple[int, ...] = (1, 3, 5)
    linf: tuple[float, ...] = (0.05, 0.1)
    l2: tuple[float, ...] = (0.5,)
    steps: int = 20
    length: float = 0.5
    samples: int = 500
    strongest: bool = True
    limit: int = 0


_DIGITS: dict[str, Any] = {"train": "digits(side=8, split=train)", "test": "digits(side=8, split=test)", "net": "small_cnn"}
SETTINGS = {
    Scale.SMOKE: Settings(
        **_DIGITS, fit=Fit(epochs=10, batch_size=80, weight_decay=1e-4, schedule="onecycle"), alphas=(-1.0, 0.0, 1.0), seeds=2,
        corruptions=("gaussian_noise", "contrast"), severities=(3,), linf=(0.1,), steps=3, samples=60, limit=400, strongest=False,
    ),
    Scale.SMALL: Settings(
        **_DIGITS, fit=Fit(epochs=40, batch_size=128, weight_decay=1e-4, nesterov=False, schedule="step", milestones=(20, 30)),
        alphas=(-5.0, -1.0, -0.3, 0.0, 0.1, 0.3, 1.0), seeds=3,
    ),
    Scale.PAPER: Settings(
        train="cifar10(split=train)", test="cifar10(split=test)", net="resnet20",
        fit=Fit(epochs=200, batch_size=256, weight_decay=1e-4, nesterov=False, schedule="step", milestones=(100, 150), holdout=0.1),
        alphas=(-2.0, -1.0, -0.7, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0), seeds=20, severities=(1, 2, 3, 4, 5),
        linf=tuple(k / 255 for k in (1, 2, 4, 8, 16)), l2=(0.25, 0.5, 1.0), length=1.0, samples=2000,
    ),
}  # fmt: skip


class ClassSelectivity(Study, name="class_selectivity"):
    """Trains networks with regularised class selectivity and measures what that does to robustness, dimensionality and gradients.

    For every alpha and seed a network is trained by `selectivity(alpha)`, and audited: clean, all corruptions and severities, FGSM and PGD
    over budgets, selectivity, dimensionality under corruption, attack and noise of one L2 norm, input-unit gradients, Jacobian.
    Controls: noise of equal norm; regularising the first or the last layer alone; selectivity along other axes than the units' (off-axis
    check); networks hardened against corruptions and against attacks, whose selectivity is read (the reverse direction). Outcomes are
    held against *measured* selectivity, by Spearman's correlation within each seed; intervals are bootstrapped over seeds. Collapsed
    networks (clean accuracy below twice chance) are left out and counted.

    Arguments:
        alphas, seeds, net, train, test, limit: replace those of the scale where given. epochs: too; milestones move in proportion.

    References: Leavitt & Morcos (2020), "Linking average- and worst-case perturbation robustness via class selectivity and
        dimensionality", arXiv 2010.07693; (2021), "Selectivity considered harmful", ICLR, arXiv 2003.01262. Epsilons, attack steps
        and the exact grid of alphas were not found in what was read of them; ours are in `SETTINGS`.

    Example:
        >>> ClassSelectivity(seeds=5).spec()
        'class_selectivity(seeds=5)'
    """

    paper: ClassVar[Reference] = Reference(
        "Matthew L. Leavitt, Ari Morcos", 2020,
        "Linking average- and worst-case perturbation robustness via class selectivity and dimensionality", "https://arxiv.org/abs/2010.07693",
    )  # fmt: skip
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("control", "The coefficient alpha moves mean class selectivity in its direction.", "2003.01262"),
        Claim(
            "off_axis",
            "Lowering selectivity of units lowers it along the best other axes too: it has not been turned away.",
            "2003.01262, section on off-axis selectivity",
        ),
        Claim("clean_cost", "Raising selectivity lowers clean accuracy.", "2003.01262"),
        Claim("corruption", "Lower selectivity goes with higher accuracy under corruptions.", "2010.07693, abstract"),
        Claim("corruption_normalised", "So it does after dividing by clean accuracy.", "2010.07693"),
        Claim("attack", "Lower selectivity goes with lower accuracy under white-box attacks.", "2010.07693, abstract"),
        Claim("trade_off", "At the most negative alpha, corruption accuracy gains on attack accuracy, relative to alpha 0.", "2010.07693"),
        Claim("early_dimension", "Early-layer dimensionality falls as selectivity rises.", "2010.07693, abstract"),
        Claim("attack_dimension", "Attacks raise early-layer dimensionality more than corruptions of equal size.", "2010.07693, abstract"),
        Claim(
            "change_dimension", "Lowering selectivity raises the dimensionality of the change that attacks cause.", "2007.04440, abstract"
        ),
        Claim("gradient_samples", "Input-unit gradients vary more across samples where selectivity is higher.", "2010.07693, abstract"),
        Claim("gradient_units", "Input-unit gradients vary more across units where selectivity is higher.", "2010.07693, abstract"),
        Claim("jacobian", "The input-output Jacobian shrinks as selectivity grows.", "2010.07693; from memory of the text"),
        Claim("reverse_corruption", "Training against corruptions lowers selectivity.", "author's summary"),
        Claim("reverse_attack", "Training against attacks raises selectivity.", "author's summary"),
    )

    alphas: tuple[float, ...] = ()
    seeds: int = Field(default=0, ge=0)
    net: str = ""
    train: str = ""
    test: str = ""
    limit: int = Field(default=0, ge=0)
    epochs: int = Field(default=0, ge=0)

    def settings(self, scale: Scale) -> Settings:
        """Those of the scale, with the fields that are given in their place."""
        names = ("alphas", "seeds", "net", "train", "test", "limit")
        chosen = replace(SETTINGS[scale], **{name: getattr(self, name) for name in names if getattr(self, name)})
        if self.epochs:
            steps = {max(round(epoch * self.epochs / chosen.fit.epochs), 1) for epoch in chosen.fit.milestones}
            chosen = replace(chosen, fit=chosen.fit.replace(epochs=self.epochs, milestones=tuple(sorted(steps))))
        return chosen if 0.0 in chosen.alphas else replace(chosen, alphas=tuple(sorted({*chosen.alphas, 0.0})))

    def __call__(self, lab: Any, *, scale: Scale) -> Outcome:
        """Train, measure and judge. Every network and cell is kept by the lab, so an interrupted study goes on."""
        s = self.settings(scale)
        train, test = load_dataset(s.train), load_dataset(s.test)
        train, test = (data.limit(s.limit, 0) if s.limit else data for data in (train, test))
        nets = {name: net for seed in range(lab.seed, lab.seed + s.seeds) for name, net in self._trained(lab, s, train, seed)}
        battery = Battery(s)
        robustness = lab.part("robustness").measure(nets, test, battery.robustness, ["accuracy"])
        inside = lab.part("inside").measure(nets, test, list(battery.equal.values()), battery.probes)
        sweep = {name: net for name, net in nets.items() if _place(name)["alpha"] is not None}
        turned = lab.part("off_axis").measure(sweep, test, (), [battery.off_axis])
        rows = [
            {**_place(name), **battery.accuracies(Numbers(robustness, name)), **battery.inside(Numbers(inside, name)),
             **(battery.axes(Numbers(turned, name)) if name in sweep else {})}
            for name in nets
        ]  # fmt: skip
        chance = 1 / len(test.classes)
        alive = [row for row in rows if row["clean"] >= 2 * chance]
        notes = [f"{len(rows) - len(alive)} of {len(rows)} networks collapsed (clean accuracy below twice chance) and are left out."]
        return Outcome(self.spec(), scale, self.paper, tuple(_verdicts(self.claims, alive, s)), rows, tuple(_figures(alive)), tuple(notes))

    def _trained(self, lab: Any, s: Settings, train: Dataset, seed: int) -> Iterable[tuple[str, Network]]:
        start = load_network(s.net, shape=train.shape, classes=len(train.classes), seed=seed)
        low = min(s.alphas)
        hows: dict[str, Hardening] = {f"alpha {alpha:g}": Selectivity(alpha=alpha, fit=s.fit) for alpha in s.alphas}
        hows |= {"early only": Selectivity(alpha=low, first=1, fit=s.fit), "late only": Selectivity(alpha=low, last=1, fit=s.fit)}
        hows["against corruptions"] = s.fit.replace(augment=tuple(parse(f"{name}(severity=3)", Perturbation) for name in s.corruptions))
        attack = parse(f"pgd(steps=5, goal=maximise(cross_entropy), threat=ball(eps={max(s.linf)!r}))", Perturbation)
        hows["against attacks"] = Adversarial(attack=attack, fit=s.fit)
        for name, how in hows.items():
            yield f"{name}, seed {seed}", lab.harden({name: start}, how, train, seed=seed)[name]


class Battery:
    """What every network of the sweep is asked, and how the answers are read off the table."""

    def __init__(self, s: Settings) -> None:
        self.corruptions = [_canonical(f"{name}(severity={severity})") for name in s.corruptions for severity in s.severities]
        self.attacks = {f"Linf {eps:g}": f"pgd(steps={s.steps}, threat=ball(eps={eps!r}))" for eps in s.linf}
        self.attacks |= {f"L2 {eps:g}": f"pgd(steps={s.steps}, threat=ball(norm=2, eps={eps!r}))" for eps in s.l2}
        self.attacks |= {f"FGSM {eps:g}": f"fgsm(threat=ball(eps={eps!r}))" for eps in s.linf}
        if s.strongest:
            self.attacks["strongest"] = f"strongest(threat=ball(eps={max(s.linf)!r}))"
        self.equal = {  # one L2 norm, three causes
            "corruption": f"of_length(corruption={s.corruptions[-1]}(severity=3), eps={s.length!r})",
            "noise": f"l2_noise(eps={s.length!r})",
            "attack": f"pgd(steps={s.steps}, goal=maximise(cross_entropy), threat=ball(norm=2, eps={s.length!r}))",
        }
        self.attacks, self.equal = ({name: _canonical(text) for name, text in asked.items()} for asked in (self.attacks, self.equal))
        self.robustness = [*self.corruptions, *self.attacks.values()]
        self.off_axis = f"off_axis_selectivity(sample={s.samples})"
        self.probes = ["class_selectivity", f"dimensionality(sample={s.samples})", "input_gradient", "jacobian", "sparsity"]

    def accuracies(self, read: Numbers) -> dict[str, float]:
        """Clean, under corruptions (raw, and over clean accuracy), and under every attack."""
        clean, cells = read("accuracy"), [read("accuracy", text) for text in self.corruptions]
        found = {"clean": clean, "corrupted": float(np.mean(cells))}
        found["corrupted_normalised"] = found["corrupted"] / clean if clean else np.nan
        return found | {f"attacked {name}": read("accuracy", text) for name, text in self.attacks.items()}

    def inside(self, read: Numbers) -> dict[str, float]:
        """Selectivity, gradients and dimensions: of the network, and of its layers, numbered from the input."""
        whole = {"selectivity", "selectivity_null", "jacobian_norm", "input_gradient_cv_samples", "input_gradient_cv_units", "zeros"}
        row = {name: read(name) for name in sorted(whole)}
        row |= {f"moved {cause}": read.moved(text) for cause, text in self.equal.items()}
        for place, layer in enumerate(read.layers("selectivity"), 1):
            for name in ("selectivity", "input_gradient_cv_samples", "input_gradient_cv_units", "dead_units", "response_level"):
                row[f"{name} {place}"] = read(name, layer=layer)
            for measure in ("components_90", "participation_ratio", "two_nn"):
                row[f"{measure} {place}"] = read(measure, layer=layer)
                for cause, text in self.equal.items():
                    row[f"{measure} {place} {cause}"] = read(measure, text, layer)
                    for form in ("increase", "change"):
                        row[f"{measure}_{form} {place} {cause}"] = read(f"{measure}_{form}", text, layer)
        return row

    def axes(self, read: Numbers) -> dict[str, float]:
        """Selectivity along the axes of units, along the best rotation, and along random ones: of the network and of its layers."""
        names = ("on_axis_selectivity", "off_axis_selectivity", "random_axis_selectivity")
        layers = {"": "", **{layer: f" {place}" for place, layer in enumerate(read.layers(names[0]), 1)}}
        return {f"{name}{place}": read(name, layer=layer) for layer, place in layers.items() for name in names}


class Numbers:
    """The readings of one network, by name, perturbation and layer; NaN where there is none."""

    def __init__(self, table: Table, net: str) -> None:
        self.table, self.net = table, net
        self.values = {(row["name"], row["perturbation"], row["layer"]): row["value"] for row in table.rows if row["net"] == net}

    def __call__(self, name: str, perturbation: str = "clean", layer: str = "") -> float:
        value = self.values.get((name, perturbation, layer))
        return np.nan if value is None else float(value)

    def moved(self, perturbation: str) -> float:
        """How far the samples were moved, mean L2 norm."""
        return float(np.mean(self.table.samples(self.net, perturbation).get("l2", np.nan)))

    def layers(self, name: str) -> list[str]:
        """The layers that have a clean reading of this name, from the input on."""
        return [layer for found, perturbation, layer in self.values if (found, perturbation) == (name, "clean") and layer]


def _canonical(text: str) -> str:
    """A perturbation as tables spell it."""
    return parse(text, Perturbation).spec()


def _place(name: str) -> dict[str, Any]:
    """Training and seed of a network, from its name."""
    training, _, seed = name.rpartition(", seed ")
    alpha = float(training.removeprefix("alpha ")) if training.startswith("alpha ") else None
    return {"network": name, "training": training, "alpha": alpha, "seed": int(seed)}


Rows = list[dict[str, Any]]


def _verdicts(claims: tuple[Claim, ...], rows: Rows, s: Settings) -> Iterable[Verdict]:
    sweep = [row for row in rows if row["alpha"] is not None]
    by_seed = {seed: sorted((r for r in sweep if r["seed"] == seed), key=lambda r: r["alpha"]) for seed in {r["seed"] for r in sweep}}
    early = _early(sweep)
    low, attack = min(s.alphas), f"attacked Linf {max(s.linf):g}"

    def follows(claim: Claim, outcome: str, sign: int, x: str = "selectivity") -> Verdict:
        groups = {seed: ([r[x] for r in part], [r.get(outcome, np.nan) for r in part]) for seed, part in by_seed.items()}
        return judge_correlation(claim, groups, f"Spearman correlation of {outcome} with {x}, mean over seeds", sign=sign)

    def differs(claim: Claim, a: str, b: str, what: Callable[[dict[str, Any]], float], measure: str) -> Verdict:
        pairs = [(_one(rows, a, seed), _one(rows, b, seed)) for seed in sorted(by_seed)]
        return judge_difference(claim, [what(p) - what(q) for p, q in pairs if p and q], measure)

    judged: dict[str, Callable[[Claim], Verdict]] = {
        "control": lambda c: follows(c, "selectivity", 1, "alpha"),
        "off_axis": lambda c: follows(c, "off_axis_selectivity", 1),
        "clean_cost": lambda c: follows(c, "clean", -1),
        "corruption": lambda c: follows(c, "corrupted", -1),
        "corruption_normalised": lambda c: follows(c, "corrupted_normalised", -1),
        "attack": lambda c: follows(c, attack, 1),
        "trade_off": lambda c: differs(c, f"alpha {low:g}", "alpha 0", lambda r: r["corrupted"] - r[attack],
                                       f"(corrupted - {attack}) at alpha {low:g} minus that at 0"),
        "early_dimension": lambda c: follows(c, f"components_90 {early}", -1),
        "attack_dimension": lambda c: judge_difference(
            c, [r[f"components_90_increase {early} attack"] - r[f"components_90_increase {early} corruption"] for r in _at(sweep, 0.0)],
            f"components_90 added in layer {early} by an attack minus by a corruption of equal L2 norm, alpha 0",
        ),
        "change_dimension": lambda c: follows(c, f"components_90_change {early} attack", -1),
        "gradient_samples": lambda c: follows(c, "input_gradient_cv_samples", 1),
        "gradient_units": lambda c: follows(c, "input_gradient_cv_units", 1),
        "jacobian": lambda c: follows(c, "jacobian_norm", -1),
        "reverse_corruption": lambda c: differs(c, "alpha 0", "against corruptions", lambda r: r["selectivity"],
                                                "selectivity, plain minus trained against corruptions"),
        "reverse_attack": lambda c: differs(c, "against attacks", "alpha 0", lambda r: r["selectivity"],
                                            "selectivity, trained against attacks minus plain"),
    }  # fmt: skip
    for claim in claims:
        yield judged[claim.name](claim)


def _early(rows: Rows) -> int:
    """The layer called early: the one a third of the way up, at least the first."""
    layers = sum(f"selectivity {place}" in rows[0] for place in range(1, 1000)) if rows else 1
    return max(1, round(layers / 3))


def _at(rows: Rows, alpha: float) -> Rows:
    return [row for row in rows if row["alpha"] == alpha]


def _one(rows: Rows, training: str, seed: int) -> dict[str, Any] | None:
    return next((row for row in rows if row["training"] == training and row["seed"] == seed), None)


def _figures(rows: Rows) -> Iterable[Figure]:
    sweep = [row for row in rows if row["alpha"] is not None]
    if not sweep:
        return
    attacked = [name for name in sweep[0] if name.startswith("attacked ")]
    accuracies = {"clean": "clean", "corruptions (mean)": "corrupted", **{name.removeprefix("attacked "): name for name in attacked}}
    yield Figure("Accuracy against selectivity", "mean class selectivity", "accuracy",
                 tuple(_dose(sweep, label, name) for label, name in accuracies.items()),
                 "Each point is the mean over seeds at one alpha; bars run over the seeds.")  # fmt: skip
    layers = [int(name.split()[1]) for name in sweep[0] if name.startswith("selectivity ")]
    for measure, title in (("selectivity", "Selectivity by layer"), ("components_90", "Components for 90 % of the variance by layer"),
                           ("input_gradient_cv_samples", "Variability of input-unit gradients by layer")):  # fmt: skip
        yield Figure(title, "layer", measure.replace("_", " "), tuple(
            Curve(f"alpha {alpha:g}", tuple(map(float, layers)), tuple(_mean(_at(sweep, alpha), f"{measure} {k}") for k in layers))
            for alpha in sorted({row["alpha"] for row in sweep})
        ), "Mean over seeds.")  # fmt: skip
    early = _early(sweep)
    yield Figure("Dimensions that a perturbation of equal size adds", "mean class selectivity", f"components in layer {early}", tuple(
        _dose(sweep, cause, f"components_90_increase {early} {cause}") for cause in ("corruption", "noise", "attack")
    ), "Attack, corruption and noise have the same L2 norm.")  # fmt: skip
    yield _equal(_at(sweep, 0.0), layers)
    yield Figure("Selectivity along other axes", "mean class selectivity", "selectivity of rotated, rectified responses", tuple(
        _dose(sweep, name.replace("_", " "), name) for name in ("on_axis_selectivity", "off_axis_selectivity", "random_axis_selectivity")
    ), "Off-axis: the best orthogonal rotation of each layer, found on half of a sample and read on the other.")  # fmt: skip


def _equal(rows: Rows, layers: list[int]) -> Figure:
    """The dimensionality of clean and perturbed activations and of the change, layer by layer, for perturbations of one norm."""
    names = {"clean": "components_90 {}"}
    for cause in ("corruption", "noise", "attack"):
        names |= {cause: f"components_90 {{}} {cause}", f"{cause}: increase": f"components_90_increase {{}} {cause}",
                  f"{cause}: change": f"components_90_change {{}} {cause}"}  # fmt: skip
    moved = ", ".join(f"{cause} {_mean(rows, f'moved {cause}') or 0:.3g}" for cause in ("corruption", "noise", "attack"))
    curves = (Curve(label, tuple(map(float, layers)), tuple(_mean(rows, name.format(k)) for k in layers)) for label, name in names.items())
    return Figure("Dimensionality under perturbations of one size, alpha 0", "layer", "components for 90 % of the variance", tuple(curves),
                  f"Mean over seeds. Mean L2 norms: {moved}. The change is that of the activations.")  # fmt: skip


def _dose(rows: Rows, label: str, name: str) -> Curve:
    groups = [_at(rows, alpha) for alpha in sorted({row["alpha"] for row in rows})]
    ends = [[row[name] for row in group if np.isfinite(row[name])] or [np.nan] for group in groups]
    return Curve(label, tuple(_mean(group, "selectivity") or 0.0 for group in groups), tuple(_mean(group, name) for group in groups),
                 tuple(_finite(min(values)) for values in ends), tuple(_finite(max(values)) for values in ends))  # fmt: skip


def _mean(rows: Rows, name: str) -> float | None:
    values = [row[name] for row in rows if np.isfinite(row.get(name, np.nan))]
    return float(np.mean(values)) if values else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
