"""The line of the gradient: how far is it, straight down the gradient, to another answer, and would a random network differ?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.confidence import quantile_interval, wilson
from brinell.core.draws import Draws, derive
from brinell.core.line import Output, along, downhill, first_crossing, line_lengths, relative_step, value_and_gradient
from brinell.core.measurement import Bound, Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.record import record
from brinell.core.tally import Max, Sample, Tallies, Tally
from brinell.models.random_limit import LineLaw, line_law

_NEAR, _FAR = 40, 20
_CONFIDENCE = 0.95


def layer_gains(net: Any, x: Tensor, layers: Sequence[str] = (), iterations: int = 30) -> dict[str, tuple[Tensor, int]]:
    """The spectral norm |J_i(x)|_2 of the Jacobian of each ReLU layer's output in the input, by power iteration on J^T J.

    Arguments:
        net: a network or module. x: (n, *d). layers: names or patterns, () for all. iterations: each costs two backward passes a layer.

    Returns:
        by layer name, in forward order: (n,) float64 norms, which are never too large and come near from below, and the layer's
        number of entries. 0 for a layer that does not depend on x.

    Raises:
        NetworkError: a name matches no recorded layer.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
        >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        >>> layer_gains(net, torch.ones(1, 2))
        {'1:0': (tensor([3.], dtype=torch.float64), 2)}
    """
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        with record(net, tuple(layers)) as found:
            net(z)
        return {name: (_spectral_norm(a.flatten(1), z, name, iterations), a[0].numel()) for name, a in found.items()}


def _spectral_norm(a: Tensor, z: Tensor, name: str, iterations: int) -> Tensor:
    u = torch.zeros_like(a).requires_grad_()
    pulled = torch.autograd.grad(a, z, u, create_graph=True, allow_unused=True)[0] if a.requires_grad else None
    if pulled is None or not pulled.requires_grad:
        return torch.zeros(len(z), dtype=torch.float64, device=z.device)
    start = derive(0, "gradient_line", name, ids=[0], device=z.device).normal(z[0].numel())
    v = start.to(z.dtype).reshape(1, *z.shape[1:]).expand_as(z)
    size = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    wide = (-1, *(1,) * (z.ndim - 1))
    for _ in range(iterations):
        v = v / norms.length(v, 2).clamp(min=1e-30).reshape(wide)
        (pushed,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
        size = norms.length(pushed.double(), 2)
        (v,) = torch.autograd.grad(a, z, pushed, retain_graph=True)
        v = v.detach()
    return size


class GradientLine(Probe, name="gradient_line"):
    """Reads a network along the line of its input gradient, with the numbers of a random ReLU network of infinite width beside them.

    f is the lead of the predicted class over the second at z; u = -grad f / |grad f|. Readings, of the samples whose gradient is not 0:

    - `relative_step`: median of lin = |f| / (|grad f| |z|), the way to the other answer, over |z|, if f were linear; array: of each;
    - `step_flip_rate`: share of samples at which factor * lin changes the sign of f; `random_flip_rate`: that of a step of the same
      length in a random direction;
    - `line_flip_rate`: share with a sign change anywhere on the line up to `most`; `line_step`: median eps* of the first one over |z|;
    - `line_residual`: median of |f at lin / f at z|, 0 for a linear function, and `dead_samples`: share without a gradient;
    - each of these but the last with `_predicted`: its value for Gaussian bias-free ReLU networks of infinite width with as many ReLU
      layers, inputs and classes (`models.random_limit.line_law`); `relative_step` is then 0.67 / sqrt(d) for two classes;
    - of every ReLU layer: `layer_gain`, mean of the Jacobian's spectral norm |J_i|_2, a LOWER bound by power iteration, and
      `layer_gain_normalised`, that times sqrt(m_i / d_i), d_i its entries and m_i the fewest up to it: of order 1 in random networks.

    Measure a network before and after training to see what training changed. The line leaves the domain of images where it must: it is
    the function that is asked, not an attacker (`gradient_step` is the attack). Layers joined by skips count in forward order.

    Arguments:
        factor, most: as above. samples: those with the smallest hash of their id take part in the lines; each costs 63 forward passes.
        jacobians: samples that layers are measured at, 0 for none. iterations: of the power iteration. layers: names or patterns; () for
            every ReLU output.

    References: Bartlett, Bubeck & Cherapanamjeri (2021), "Adversarial examples in multi-layer random ReLU networks", arXiv 2106.12611.
        Montanari & Wu (2022), arXiv 2203.17209. Departures: networks have biases, convolutions and K classes.

    Example:
        >>> GradientLine(samples=100).spec()
        'gradient_line(samples=100)'
    """

    factor: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    most: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    samples: int = Field(default=256, ge=1)
    jacobians: int = Field(default=16, ge=0)
    iterations: int = Field(default=30, ge=1)
    layers: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, net=True)

    @property
    def cost(self) -> tuple[int, int]:
        return _NEAR + _FAR + 3, 1

    def observe(self, view: View, *, draws: Draws) -> Tally:
        rows = _chosen(self.samples, view.ids)
        ids = view.ids.cpu()[rows]
        columns = self._lines(view, rows.to(view.z.device), draws)
        few = _chosen(self.jacobians, view.ids)
        gains = layer_gains(view.net, view.z[few.to(view.z.device)], self.layers, self.iterations) if len(few) else {}
        layers = {
            name: Sample.pick(self.jacobians, view.ids.cpu()[few], {"gain": torch.nan_to_num(gain, nan=torch.inf).cpu()})
            for name, (gain, _) in gains.items()
        }
        facts = {"inputs": torch.tensor(view.z[0].numel()), "classes": torch.tensor(view.logits.shape[1])}
        places = {name: torch.tensor(place) for place, name in enumerate(view.activations)}
        sizes = {name: torch.tensor(size) for name, (_, size) in gains.items()}
        return Tallies({
            "lines": Sample.pick(self.samples, ids, columns), "layers": Tallies(layers), "facts": Max(facts), "places": Max(places),
            "sizes": Max(sizes),
        })  # fmt: skip

    def _lines(self, view: View, rows: Tensor, draws: Draws) -> dict[str, Tensor]:
        """lin, eps*, residual, and whether the step and a random one of its length flip; (m,) each, NaN without a gradient."""
        z = view.z[rows].detach()
        output = _lead(view.net, view.logits[rows])
        f, g = value_and_gradient(output, z)
        linear, size, u = relative_step(f, g, z), norms.length(z.double(), 2), downhill(f, g)
        lengths = line_lengths(linear, size, self.most, _NEAR, _FAR)
        _, beyond = first_crossing(output, z, f, u, lengths, rounds=1)
        eps = beyond / size.clamp(min=1e-300)
        way = torch.nan_to_num(linear) * size
        random = draws[rows.to(draws.device)].to(z.device).normal(*z.shape[1:]).to(z.dtype)
        with torch.no_grad():
            straight = output(along(z, u, torch.stack((way, self.factor * way), 1)))
            aside = output(along(z, downhill(-torch.ones_like(f), random), self.factor * way[:, None]))
        moved = torch.cat((straight, aside), 1).double() * f.double().sign()[:, None]
        dead = linear.isnan()
        known = {
            "linear": linear, "crossing": torch.where(eps <= self.most, eps, torch.inf), "residual": moved[:, 0] / f.double().abs(),
            "step": (moved[:, 1] < 0).double(), "random": (moved[:, 2] < 0).double(),
        }  # fmt: skip
        return {name: torch.where(dead, torch.nan, values).cpu() for name, values in known.items()}

    def read(self, tally: Tally) -> list[Reading]:
        lines = tally.parts.get("lines")
        if lines is None or "id" not in lines:
            return [Reading.undefined("relative_step", "there is no sample to measure")]
        values = {name: lines[name].numpy() for name in ("linear", "crossing", "residual", "step", "random")}
        alive = ~np.isnan(values["linear"])
        n = len(alive)
        share = _rate("dead_samples", ~alive)
        if not alive.any():
            reason = "no sample has a gradient: the lead of the predicted class is flat at all of them"
            return [Reading.undefined("relative_step", reason, n=n), share]
        kept = {name: column[alive] for name, column in values.items()}
        facts, order = tally.parts["facts"], tally.parts["places"].values
        law = line_law(int(facts["inputs"]), len(order), classes=int(facts["classes"]), samples=4000, most=self.most, points=96)
        return [*self._along(kept, law, int(facts["inputs"])), share, *_gains(tally, int(facts["inputs"]))]

    def _along(self, kept: dict[str, np.ndarray], law: LineLaw, inputs: int) -> list[Reading]:
        n = len(kept["linear"])
        readings = [
            _median("relative_step", kept["linear"], kept["linear"]), _rate("step_flip_rate", kept["step"] > 0),
            _rate("random_flip_rate", kept["random"] > 0), _rate("line_flip_rate", np.isfinite(kept["crossing"])),
            _median("line_step", kept["crossing"]), _median("line_residual", np.abs(kept["residual"])),
        ]  # fmt: skip
        expected = {
            "relative_step": float(np.median(law.linear)), "step_flip_rate": law.flip_rate(self.factor, self.most),
            "random_flip_rate": 0.5 * math.erfc(math.sqrt(inputs / 2) / self.factor), "line_flip_rate": law.flip_rate(most=self.most),
            "line_step": float(np.median(law.crossing)), "line_residual": float(np.median(np.abs(law.residual))),
        }  # fmt: skip
        for name, value in expected.items():
            shown = f"{name}_predicted"
            reason = f"fewer than half of such random networks change their sign up to {self.most:g}"
            finite = math.isfinite(value)
            readings.append(Reading(shown, value, bound=Bound.ESTIMATE, n=n) if finite else Reading.undefined(shown, reason, n=n))
        return readings


def _lead(net: Any, logits: Tensor) -> Output:
    """The lead of the class predicted from `logits` (n, K) over the second there, at points (n, m, *d); both stay the same."""
    first, second = logits.topk(2, dim=1).indices.T

    def lead(z: Tensor) -> Tensor:
        out = net(z.flatten(0, 1)).double().reshape(*z.shape[:2], -1)
        own, other = (out.gather(2, pick[:, None, None].expand(-1, z.shape[1], 1)) for pick in (first, second))
        return (own - other)[..., 0]

    return lead


def _chosen(k: int, ids: Tensor) -> Tensor:
    """Positions of the at most k samples of this shard that can be among the k chosen of all."""
    return Sample.pick(k, ids, {"place": torch.arange(len(ids))})["place"]


def _gains(tally: Tally, inputs: int) -> list[Reading]:
    """Norms by layer in forward order, raw and normalised by the narrowest layer up to it."""
    layers, order, narrowest = tally.parts.get("layers", Tallies()).parts, tally.parts["places"].values, inputs
    readings = []
    for name in sorted(layers, key=lambda layer: (int(order[layer]), layer)):
        size, gains = int(tally.parts["sizes"][name]), layers[name]["gain"].numpy()
        narrowest = min(narrowest, size)
        if not np.isfinite(gains).all():
            readings.append(Reading.undefined("layer_gain", "a gradient is NaN or inf", layer=name, n=len(gains)))
            continue
        mean = float(gains.mean())
        readings += [
            Reading("layer_gain", mean, name, bound=Bound.LOWER, n=len(gains), array=gains, axis="sample"),
            Reading("layer_gain_normalised", mean * math.sqrt(narrowest / size), name, bound=Bound.LOWER, n=len(gains)),
        ]
    return readings


def _rate(name: str, flags: np.ndarray) -> Reading:
    low, high = wilson(int(flags.sum()), len(flags), _CONFIDENCE)
    return Reading(name, float(flags.mean()), low=low, high=high, confidence=_CONFIDENCE, n=len(flags))


def _median(name: str, values: np.ndarray, array: np.ndarray | None = None) -> Reading:
    middle, low, high = quantile_interval(values, 0.5, _CONFIDENCE)
    if not math.isfinite(middle):
        return Reading.undefined(name, "the sign changes at fewer than half of the samples", n=len(values))
    end = high if math.isfinite(high) else None
    return Reading(
        name, middle, low=low, high=end, confidence=_CONFIDENCE, n=len(values), array=array, axis="sample" if array is not None else ""
    )
