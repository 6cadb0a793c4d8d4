"""The search for the largest divergence in a ball: projected ascent from several starts, at two scales of the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from brinell.core.ascent import goal_gradient, shared
from brinell.core.draws import Draws
from brinell.core.goal import Maximise
from brinell.core.threat import Ball
from brinell.probe.logit_scale import NORMALISED

Net = Callable[[Tensor], Tensor]


@dataclass
class Peak:
    """The largest divergence seen of each sample, (n,) float64, and where, (n, *d)."""

    value: Tensor
    z: Tensor

    @classmethod
    def at(cls, x: Tensor) -> Peak:
        """The sample itself, which is at no divergence from itself."""
        return cls(torch.zeros(len(x), dtype=torch.float64, device=x.device), x)

    def see(self, value: Tensor, z: Tensor | None) -> None:
        """Take over what is larger; what is no number is not. Without z the place is not kept."""
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        if z is not None:
            self.z = torch.where(better.reshape(-1, *(1,) * (z.ndim - 1)), z, self.z)


Peaks = dict[str, Peak]
"""What was found by layer: `raw`, `normalised`."""


@dataclass(frozen=True)
class Search:
    """How a ball is searched for the largest divergence D(x, z) between the outputs at x and z.

        z_0 uniform in the ball;   z_{k+1} = project(z_k + (rate eps / steps) steepest(grad D(x, z_k)))
                                   z_{k+1} = project(x + eps steepest(grad D(x, z_k)))              in the last fifth of the steps

    The leaps at the end go where the ball ends in the direction of steepest ascent; where D is convex in z, as for affine networks, none
    of them loses anything, and in a round ball they arrive where short steps only tend to. Near x the divergence is even in z - x and an
    ascent stays on its side, so half of the leaps begin at the mirror image x - (z - x) of where the others ended.

    From every start there are two climbs: of D from the logits Z, and of D from Z / s, whose softmax is not saturated. Every point of a
    climb counts, not its last one alone. `raw` is the largest D from Z on both climbs; `normalised` the largest D from Z / s on the second
    one: so it is the same, to rounding, whatever factor the logits have. Start r is the same for every number of restarts, so that
    more of them never find less.

    Arguments:
        quantity: `kl`, `reverse_kl` or `js`. steps, rate: of each climb. scales: of the logits, by layer. places: are the points
            wanted too?
    """

    quantity: str
    steps: int
    rate: float
    scales: Mapping[str, float]
    places: bool = True

    def starts(self, x: Tensor, ball: Ball, draws: Draws, count: int) -> Iterable[Tensor]:
        """Random points of the ball, the same in every type of x."""
        for restart in range(count):
            yield ball.sample(x.double(), draws.at("restart", restart)).to(x.dtype)

    def climbs(self, net: Net, x: Tensor, clean: Tensor, ball: Ball, starts: Iterable[Tensor]) -> Iterator[tuple[Peaks, Tensor]]:
        """`climb` from each start; from several in one pass where samples are small."""
        for some in batched(starts, shared(x)):
            m, n = len(some), len(x)
            peaks, flat = self.climb(net, torch.cat((x,) * m), torch.cat((clean,) * m), ball, torch.cat(some))
            parts = {layer: list(zip(peak.value.split(n), peak.z.split(n), strict=True)) for layer, peak in peaks.items()}
            for number, steps in enumerate(flat.split(n)):
                yield {layer: Peak(*part[number]) for layer, part in parts.items()}, steps

    def climb(self, net: Net, x: Tensor, clean: Tensor, ball: Ball, start: Tensor) -> tuple[Peaks, Tensor]:
        """The climbs from one start. clean: (n, K) logits at x. Returns what was found, and (n,) how many steps had no gradient."""
        peaks = {layer: Peak.at(x) for layer in self.scales}
        goals = {layer: Maximise(quantity=self.quantity, scale=scale) for layer, scale in self.scales.items()}  # pyright: ignore[reportArgumentType]
        y, exact, size = clean.argmax(1), clean.double(), self.rate * ball.eps / self.steps
        flat, leaps, step_in = torch.zeros_like(y), self.steps // 5, _steps(ball, x, size)
        for layer, goal in goals.items():
            seen = [other for other in goals if layer == NORMALISED or other == layer]
            z = start
            for step in range(self.steps + 1):
                if step < self.steps:
                    gradient, losses, logits = goal_gradient(net, z, y, clean, goal)
                else:
                    with torch.no_grad():
                        logits = net(z)
                    gradient, losses = z, goal.loss(logits.double(), y, exact)
                for other in seen:
                    peaks[other].see(losses if other == layer else goals[other].loss(logits.double(), y, exact), z if self.places else None)
                if step < self.steps:
                    flat += gradient.flatten(1).abs().amax(1) == 0
                    left = self.steps - step
                    z = step_in(z, gradient, left <= leaps)
                    if left == leaps // 2 + 1 and leaps > 1:
                        z = ball.project(x, 2 * x - z)
        return peaks, flat


def _steps(ball: Ball, x: Tensor, size: float) -> Callable[[Tensor, Tensor, bool], Tensor]:
    """The step from z along a gradient, short or a leap from x, into the ball; in the Linf norm without the work of other norms."""
    if ball.norm == torch.inf:
        low, high = ball.box(x)
        return lambda z, g, leap: torch.where(g > 0, high, torch.where(g < 0, low, x)) if leap else (z + size * g.sign()).clamp(low, high)
    return lambda z, g, leap: ball.project(x, x + ball.eps * ball.steepest(g) if leap else z + size * ball.steepest(g, z))


def batched(starts: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Lists of so many at a time, the last one perhaps shorter."""
    some: list[Tensor] = []
    for start in starts:
        some.append(start)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def most(found: Iterable[Peaks]) -> Peaks:
    """The largest of what several climbs have found."""
    first, *rest = found
    tops = {layer: Peak(peak.value, peak.z) for layer, peak in first.items()}
    for peaks in rest:
        for layer, peak in peaks.items():
            tops[layer].see(peak.value, peak.z)
    return tops


def sweep(
    search: Search, net: Net, x: Tensor, clean: Tensor, ball: Ball, radii: Iterable[float], known: Mapping[float, Peaks], draws: Draws
) -> dict[float, Peaks]:
    """The largest divergences at growing radii, each climb warm-started from the points of the radius before, moved outwards.

    What was found in a smaller ball counts in the larger ones, so that the curve never falls. At the smallest radius there is a pair of
    random starts instead.

    Arguments:
        radii: ascending. known: what was found before at some of them.
    """
    curve: dict[float, Peaks] = {}
    last: Peaks = {layer: Peak.at(x) for layer in search.scales}
    before = 0.0
    for radius in radii:
        inside = ball.replace(eps=radius)
        if before:
            starts = [inside.project(x, x + (radius / before) * (peak.z - x)) for peak in last.values()]
        else:
            starts = list(search.starts(x, inside, draws.at("sweep"), 2))
        climbs = [peaks for peaks, _ in search.climbs(net, x, clean, inside, starts)]
        last = curve[radius] = most([last, *climbs, *([known[radius]] if radius in known else [])])
        before = radius
    return curve
