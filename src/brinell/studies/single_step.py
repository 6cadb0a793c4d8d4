"""A single gradient step on untrained two-layer networks, many small steps on deep ones, and both on small trained ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from brinell.core.confidence import bonferroni
from brinell.core.study import Claim, Outcome, Reference, Scale, Study
from brinell.models.random_ensemble import BUDGET
from brinell.studies.random_networks import Cell, fixed_numbers, gathered, line_numbers, reduced_numbers, walk_numbers
from brinell.studies.single_step_claims import Measured, verdicts
from brinell.studies.single_step_shown import figures, table
from brinell.studies.trained_line import Training, lazy, odd_even

STEPS = (1.0, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True)
class Settings:
    """What one scale of the study measures.

    Arguments:
        pairs: (d, k) and networks of rows A and B. activations: of row A. dims, line_nets: row C, k = 2d. huge, huge_nets: (d, k) of row
            D. deep_d, deep_depths, deep_nets: row E, hidden widths 2d. cones, cone_nets: d of row F, hidden widths d/2, d/4, d/8. depths,
            epochs, points: row G. sides, width: row H. train, test: data of rows G and H.
    """

    pairs: dict[tuple[int, int], int]
    activations: tuple[str, ...]
    dims: tuple[int, ...]
    line_nets: int
    huge: tuple[tuple[int, int], ...]
    huge_nets: int
    deep_d: int
    deep_depths: tuple[int, ...]
    deep_nets: int
    cones: tuple[int, ...]
    cone_nets: int
    depths: tuple[int, ...]
    epochs: int
    points: int
    sides: tuple[int, ...]
    width: int
    train: str = "digits(side=8, split=train)"
    test: str = "digits(side=8, split=test)"


SETTINGS = {
    Scale.SMOKE: Settings(
        pairs={(32, 64): 40, (64, 32): 40}, activations=("relu", "tanh"), dims=(16, 32), line_nets=30, huge=((1000, 2000),), huge_nets=10,
        deep_d=32, deep_depths=(1, 2), deep_nets=24, cones=(256,), cone_nets=16, depths=(2,), epochs=40, points=20, sides=(5,), width=64,
    ),
    Scale.SMALL: Settings(
        pairs={(64, 256): 1000, (256, 64): 1000, (256, 1024): 1000, (256, 2048): 500, (256, 8192): 250, (1024, 2048): 250},
        activations=("relu", "tanh", "sin", "softplus"), dims=(32, 64, 128, 256, 512), line_nets=400,
        huge=((10_000, 1_000_000), (1_000_000, 1_000_000)), huge_nets=100, deep_d=256, deep_depths=(1, 2, 3, 5, 16), deep_nets=150,
        cones=(64, 256, 1024), cone_nets=200, depths=(2, 3, 4, 5, 6, 7, 8), epochs=60, points=500, sides=(5, 8, 14, 28), width=1000,
    ),
    Scale.PAPER: Settings(
        pairs={(64, 256): 1000, (256, 64): 1000, (256, 1024): 1000, (256, 2048): 1000, (256, 8192): 1000, (1024, 2048): 1000,
               (1024, 1_000_000): 200, (8192, 16_384): 1000},
        activations=("relu", "tanh", "sin", "softplus"), dims=(32, 64, 128, 256, 512, 1024, 4096, 16_384), line_nets=1000,
        huge=((10_000, 1_000_000), (1_000_000, 1_000_000), (1_000_000, 100_000_000)), huge_nets=1000, deep_d=1024,
        deep_depths=(1, 2, 3, 5, 16, 64, 256, 512), deep_nets=200, cones=(64, 256, 1024, 4096, 16_384), cone_nets=1000,
        depths=(2, 3, 4, 5, 6, 7, 8), epochs=5, points=1000, sides=(5, 8, 14, 20, 28), width=1000,
        train="mnist('data/mnist', split=train)", test="mnist('data/mnist', split=test)",
    ),
}  # fmt: skip


class SingleStep(Study, name="single_step"):
    """Takes one gradient step of fixed size on random networks, and counts how often the sign changes.

    Rows of the table: A success over the step C, activation, d and k, beside erf(C D / sqrt(2 A)); B success over k; C the norm that is
    needed; D a million dimensions by the exact O(k) sampler; E depth, with a Newton step of margin 2; F networks whose layers shrink,
    by many small steps; G bias-free ReLU networks trained to tell odd from even digits; H lazily trained ones. Controls: no step, the
    wrong way, a random direction of the same length. Rows A to F have closed forms beside them; of G and H no numbers were found published.

    Arguments:
        nets: networks in every cell of rows A to F, in place of those of the scale; 0 keeps them. trained: rows G and H too. train, test:
            grey images for them, in place of the scale's. budget, shard: see the study `random_relu`.

    References: Bubeck, Cherapanamjeri, Gidel & Tachet des Combes (2021), "A single gradient step finds adversarial examples on random
        two-layers neural networks", NeurIPS, arXiv 2104.03863 (the constants of its theorems, and its experiments on deep networks,
        were not found in what was read of it). Daniely & Schacham (2020), "Most ReLU networks suffer from l2 adversarial
        perturbations", NeurIPS, arXiv 2010.14927. Wang, Ullah, Mianjy & Arora (2022), arXiv 2207.00411 (lazy training).

    Example:
        >>> SingleStep(trained=False).spec()
        'single_step(trained=False)'
    """

    paper: ClassVar[Reference] = Reference(
        "Sebastien Bubeck, Yeshwanth Cherapanamjeri, Gauthier Gidel, Remi Tachet des Combes", 2021,
        "A single gradient step finds adversarial examples on random two-layers neural networks", "https://arxiv.org/abs/2104.03863",
    )  # fmt: skip
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            "curve", "For d >= 256 a step of fixed eta = C flips erf(C D / sqrt(2 A)) of the networks, for every activation.", "A; theorems"
        ),
        Claim("moments", "E f^2 = A and E |grad f|^2 = ((d - 1) D + D2) / d at every width and dimension.", "A"),
        Claim("width_free", "The flip rate at C = 3 does not depend on the width: it varies by less than 0.08.", "B; theorems"),
        Claim("norm", "The norm that is needed does not grow with d: its median lies between 0.6 and 0.8 for d >= 64.", "C; theorems"),
        Claim("square_root", "Relative to |x| it falls as d^-1/2.", "C; theorems"),
        Claim("huge", "In a million dimensions with a million units the flip rate at C = 3 is 0.966.", "D"),
        Claim("shallow", "Up to three hidden layers and d >= 256 one Newton step flips at least 95 % of networks.", "E; 2106.12611"),
        Claim("deep", "The deepest networks flip less often than those of one layer.", "E; 2106.12611"),
        Claim(
            "small_steps",
            "On shrinking networks of the highest dimension small steps find a sign change in at least 95 %.",
            "F; 2010.14927",
        ),
        Claim("small_distance", "Its median distance, times sqrt(d) / |x|, lies between 0.4 and 0.9 in every dimension.", "F; 2010.14927"),
        Claim("straight", "The walk straightens: its length over its distance falls with d.", "F"),
        Claim("no_step", "Without a step no sign changes.", "control"),
        Claim("wrong_way", "A step of C = 3 up the gradient flips less than 2 % of networks at d >= 64.", "control"),
        Claim("direction", "In a random direction a step of the same length flips arctan(C D / sqrt(A d)) / pi of them.", "control"),
        Claim("trained_accuracy", "The trained networks are right on more than 95 % of test images at every depth.", "G; 2010.14927"),
        Claim("trained_distance", "On trained networks the median distance lies below |x| / 4 at every depth.", "G; 2010.14927"),
        Claim("trained_random", "It is more than three times shorter than the best of 20 random directions, at every depth.", "G"),
        Claim("lazy_distance", "After lazy training the distance over |x| falls as the side of the image.", "H; 2207.00411"),
        Claim("lazy_step", "After lazy training one Newton step flips at least 90 % of images at every size.", "H; 2207.00411"),
    )

    nets: int = Field(default=0, ge=0)
    trained: bool = True
    train: str = ""
    test: str = ""
    budget: int = Field(default=BUDGET, ge=1)
    shard: int = Field(default=100, ge=1)

    def settings(self, scale: Scale) -> Settings:
        """Those of the scale, with the fields that are given in their place."""
        s = SETTINGS[scale]
        if self.nets:
            n = self.nets
            s = replace(s, pairs=dict.fromkeys(s.pairs, n), line_nets=n, huge_nets=n, deep_nets=n, cone_nets=n)
        s = replace(s, train=self.train or s.train, test=self.test or s.test)
        return s if self.trained else replace(s, depths=(), sides=())

    def __call__(self, lab: Any, *, scale: Scale) -> Outcome:
        """Measure, predict and judge; pieces of `shard` networks are kept by the lab, so an interrupted study goes on."""
        s = self.settings(scale)
        measured = self.measured(lab, s)
        confidence = bonferroni(0.95, measured.cells)
        notes = (
            "Rows: A and B one fixed step, C the norm needed, D the exact O(k) sampler, E depth, F small steps on shrinking networks, "
            f"G and H networks trained on {s.train}.",
            f"Intervals of claims about many cells are simultaneous, each at a confidence of {confidence:.6g}.",
            "Rows G and H train one network per cell: their intervals are over images.",
        )
        return Outcome(
            self.spec(), scale, self.paper, tuple(verdicts(self.claims, measured, confidence)), list(table(measured)),
            tuple(figures(measured)), notes,
        )  # fmt: skip

    def measured(self, lab: Any, s: Settings) -> Measured:
        """All rows of the table, from what the lab keeps or anew."""
        steps: dict[str, Any] = {"signs": True, "steps": STEPS}
        pairs = {pair: Cell(pair, n, **steps, activations=s.activations) for pair, n in s.pairs.items()}
        line = {d: Cell((d, 2 * d), s.line_nets, signs=True) for d in s.dims}
        huge = {pair: Cell(pair, s.huge_nets, **steps) for pair in s.huge}
        deep = {depth: Cell((s.deep_d, *(2 * s.deep_d,) * depth), s.deep_nets) for depth in s.deep_depths}
        cones = {d: Cell((d, d // 2, d // 4, d // 8), s.cone_nets) for d in s.cones}

        def ask(function: Any, cells: dict[Any, Cell], shard: int = self.shard) -> dict[Any, dict[str, np.ndarray]]:
            found = gathered(lab, function, list(cells.values()), shard=shard, budget=self.budget)
            return dict(zip(cells, found, strict=True))

        def train(function: Any, asked: dict[int, Training]) -> dict[int, dict[str, Any]]:
            made = lab.map(function, list(asked.values()), key=lambda training: training.key)
            return {at: {name: _plain(value) for name, value in found.items()} for at, found in zip(asked, made, strict=True)}

        common: dict[str, Any] = {"train": s.train, "test": s.test, "points": s.points, "seed": lab.seed}
        return Measured(
            s.activations, STEPS, ask(fixed_numbers, pairs), ask(line_numbers, line), ask(reduced_numbers, huge, min(self.shard, 10)),
            s.deep_d, ask(line_numbers, deep), ask(walk_numbers, cones),
            train(odd_even, {depth: Training(**common, epochs=s.epochs, width=100, depth=depth) for depth in s.depths}),
            train(lazy, {side: Training(**common, epochs=20, width=s.width, side=side) for side in s.sides}),
        )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else value
