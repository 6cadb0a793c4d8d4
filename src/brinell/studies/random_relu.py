"""Adversarial examples in untrained multi-layer ReLU networks: how far, how linear, through which bottleneck, down to which depth?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from brinell.core.confidence import bonferroni
from brinell.core.study import Claim, Outcome, Reference, Scale, Study
from brinell.models.random_ensemble import BUDGET
from brinell.studies.random_networks import Cell, gathered, jacobian_numbers, line_numbers, value_numbers
from brinell.studies.random_relu_claims import DEAD, LAW, Measured, verdicts
from brinell.studies.random_relu_shown import figures, table


@dataclass(frozen=True)
class Settings:
    """What one scale of the study measures.

    Arguments:
        dims, depths, nets: row A to C, hidden widths 2d; nets at each of the dims. deep_dims, deep_depths, deep_width, deep_nets, sphere:
            rows D and E. narrow_d, narrow_side, narrows, narrow_nets: row F, hidden side-b-side. chains, chain_nets: row G. width_d,
            width_sides, width_nets: row H, three hidden layers. law_nets: networks for the exact laws.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    nets: tuple[int, ...]
    deep_dims: tuple[int, ...]
    deep_depths: tuple[int, ...]
    deep_width: int
    deep_nets: int
    narrow_d: int
    narrow_side: int
    narrows: tuple[int, ...]
    narrow_nets: int
    chains: tuple[tuple[int, ...], ...]
    chain_nets: int
    width_d: int
    width_sides: tuple[int, ...]
    width_nets: int
    law_nets: int
    sphere: int = 200


_CHAINS = ((256, 16, 1024), (64, 1024, 64, 1024), (1024, 32, 1024, 32))
SETTINGS = {
    Scale.SMOKE: Settings(
        dims=(16, 32), depths=(1, 2), nets=(30, 30), deep_dims=(16,), deep_depths=(1, 4), deep_width=32, deep_nets=24, narrow_d=32,
        narrow_side=64, narrows=(1, 4, 16), narrow_nets=24, chains=((32, 4, 64), (16, 64, 16, 64)), chain_nets=1, width_d=16,
        width_sides=(16, 64), width_nets=24, law_nets=2000, sphere=20,
    ),
    Scale.SMALL: Settings(
        dims=(32, 64, 128, 256, 512), depths=(1, 2, 3, 5), nets=(400, 400, 400, 200, 100), deep_dims=(16, 64), deep_depths=(1, 4, 16, 48),
        deep_width=256, deep_nets=200, narrow_d=256, narrow_side=512, narrows=(1, 2, 4, 8, 16, 64, 256, 512), narrow_nets=200,
        chains=_CHAINS, chain_nets=10, width_d=128, width_sides=(128, 256, 1024), width_nets=100, law_nets=100_000,
    ),
    Scale.PAPER: Settings(
        dims=(32, 64, 128, 256, 512, 1024, 2048, 4096, 8192), depths=(1, 2, 3, 5), nets=(1000,) * 9, deep_dims=(16, 64, 256, 1024),
        deep_depths=(1, 4, 16, 64, 256, 512), deep_width=2048, deep_nets=1000, narrow_d=4096, narrow_side=8192,
        narrows=(1, 2, 4, 8, 16, 64, 256, 1024, 4096, 8192), narrow_nets=1000, chains=_CHAINS, chain_nets=100, width_d=128,
        width_sides=(128, 256, 1024, 4096, 8192), width_nets=1000, law_nets=1_000_000,
    ),
}  # fmt: skip


class RandomReluStudy(Study, name="random_relu"):
    """Walks the gradient's line on untrained Gaussian ReLU networks and holds what happens against the exact laws.

    Each network is asked at one point of norm sqrt(d): f, its gradient, the relative linear step lin = |f| / (|grad f| |x|), the first
    sign change eps* on the line x - sign(f) t grad f up to 0.5 |x|, the residual f(x_lin) / f(x), and the same step the wrong way and in
    a random direction. Rows of the table: A to C dimension and depth (hidden widths 2d); D and E depth at one width, signs and
    spread on the sphere; F a bottleneck of b units; G Jacobians of layers around bottlenecks; H width at one depth; X exact laws.

    No figures are published for these theorems; predictions are the closed forms for infinite width (`models.random_limit`) and the exact
    laws at finite width (`models.random_relu`).

    Arguments:
        nets: networks in every cell, in place of those of the scale; 0 keeps them. budget: bytes that a chunk of networks may take; a
            GPU likes 40_000_000_000, which `paper` scale needs. shard: networks kept as one piece.

    References: Bartlett, Bubeck & Cherapanamjeri (2021), "Adversarial examples in multi-layer random ReLU networks", NeurIPS, arXiv
        2106.12611. Its theorems' constants were not found in what was read of it; claims here are their scalings and the closed forms.

    Example:
        >>> RandomReluStudy(nets=50).spec()
        'random_relu(nets=50)'
    """

    paper: ClassVar[Reference] = Reference(
        "Peter L. Bartlett, Sebastien Bubeck, Yeshwanth Cherapanamjeri", 2021,
        "Adversarial examples in multi-layer random ReLU networks", "https://arxiv.org/abs/2106.12611",
    )  # fmt: skip
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            "linear_step", "sqrt(d) times the relative linear step has the median of its law at infinite width, 0.67, at every depth.", "A"
        ),
        Claim("square_root", "The relative linear step falls as d^-1/2 at every depth.", "A; main theorem"),
        Claim("flips", "With one hidden layer and d >= 64 the sign changes in at least 99 % of networks.", "B; main theorem"),
        Claim("flips_with_dimension", "At the largest of these depths more networks flip in high dimension than in low.", "B"),
        Claim("flips_with_depth", "In the lowest dimension fewer networks flip at the largest depth than at one layer.", "B"),
        Claim("linearity", "The residual at the linear step falls as a power of d between -0.6 and -0.3 at every depth.", "C"),
        Claim("depth_law", "Up to depth n / 20 the flip rate is that of the process at infinite width, give or take 0.05.", "D"),
        Claim("constancy", "Deep networks have one sign on the sphere more often than shallow ones.", "E; depth limitation"),
        Claim("spread", "Deep networks vary less over the sphere, relative to their size.", "E; depth limitation"),
        Claim("bottleneck_alive", "A bottleneck of b units is alive with probability 1 - 2^-b.", "F"),
        Claim("bottleneck_constant", "Behind one single unit no network changes its sign.", "F"),
        Claim("bottleneck_step", "The linear step is the same behind a bottleneck of any width, so it is no proof of a sign change.", "F"),
        Claim("bottleneck_flips", "Behind 64 units or more at least 95 % of networks flip.", "F"),
        Claim("bottleneck_change", "The relative change of b bottleneck activations at the linear step falls as b^-1/2.", "F"),
        Claim("jacobian", "A layer's Jacobian norm times sqrt(narrowest width before it / its width) lies between 1 and 3.5.", "G"),
        Claim("jacobian_span", "Without that factor the norms of the same layers differ more than 8-fold.", "G"),
        Claim("width", "At one depth the residual falls with width.", "H"),
        Claim(
            "direction", "A step of twice the linear length in a random direction flips less than 2 % of networks at d >= 64.", "control"
        ),
        Claim("wrong_way", "Up the gradient it flips less than 2 % of networks at d >= 64.", "control"),
        Claim("exact", "Moments, kurtosis, dead probability and the law of f at finite width are the exact ones.", "X"),
    )

    nets: int = Field(default=0, ge=0)
    budget: int = Field(default=BUDGET, ge=1)
    shard: int = Field(default=100, ge=1)

    def settings(self, scale: Scale) -> Settings:
        """Those of the scale, with `nets` in their place where given."""
        s = SETTINGS[scale]
        if not self.nets:
            return s
        n = self.nets
        return replace(s, nets=(n,) * len(s.dims), deep_nets=n, narrow_nets=n, width_nets=n)

    def __call__(self, lab: Any, *, scale: Scale) -> Outcome:
        """Measure, predict and judge; pieces of `shard` networks are kept by the lab, so an interrupted study goes on."""
        measured = self.measured(lab, self.settings(scale))
        confidence = bonferroni(0.95, measured.cells)
        notes = (
            "Rows: A to C dimension and depth, D and E depth at one width, F bottleneck, G Jacobians, H width, X exact laws.",
            f"Intervals of claims about many cells are simultaneous, each at a confidence of {confidence:.4g}.",
        )
        return Outcome(
            self.spec(), scale, self.paper, tuple(verdicts(self.claims, measured, confidence)), list(table(measured)),
            tuple(figures(measured)), notes,
        )  # fmt: skip

    def measured(self, lab: Any, s: Settings) -> Measured:
        """All rows of the table, from what the lab keeps or anew."""
        wide = {(d, depth): Cell((d, *(2 * d,) * depth), n) for d, n in zip(s.dims, s.nets, strict=True) for depth in s.depths}
        deep = {
            (d, depth): Cell((d, *(s.deep_width,) * depth), s.deep_nets, sphere=s.sphere) for d in s.deep_dims for depth in s.deep_depths
        }
        narrow = {b: Cell((s.narrow_d, s.narrow_side, b, s.narrow_side), s.narrow_nets, narrow=1) for b in s.narrows}
        width = {n: Cell((s.width_d, n, n, n), s.width_nets) for n in s.width_sides}
        chains = {widths: Cell(widths, s.chain_nets) for widths in s.chains}
        laws = {widths: Cell(widths, s.law_nets, variance="paper") for widths in (LAW, DEAD)}

        def ask(function: Any, cells: dict[Any, Cell], shard: int = self.shard) -> dict[Any, dict[str, np.ndarray]]:
            found = gathered(lab, function, list(cells.values()), shard=shard, budget=self.budget)
            return dict(zip(cells, found, strict=True))

        return Measured(
            ask(line_numbers, wide), ask(line_numbers, deep), ask(line_numbers, narrow), ask(line_numbers, width),
            ask(jacobian_numbers, chains), ask(value_numbers, laws, max(self.shard, 100_000)),
            s.deep_width, s.narrow_d, s.width_d, s.sphere, lab.seed,
        )  # fmt: skip
