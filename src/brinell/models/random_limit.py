"""Random ReLU networks of infinite width: the arc-cosine map, and the law of the output along the line of its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import Draws, derive
from brinell.models.random_relu import chi_squared


def arc_cosine(angle: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """kappa_L(cos t), the correlation of f at two points an angle t apart, and kappa'_L(cos t), its derivative in the cosine.

        k(c) = (sqrt(1 - c^2) + c (pi - arccos c)) / pi,    k'(c) = 1 - arccos(c) / pi,    kappa_L = k o ... o k (L times)

    The recursion runs on 1 - c, which loses no digits near c = 1, where deep networks are: 1 - kappa_L -> 9 pi^2 / (2 L^2).

    Arguments:
        angle: t in [0, pi], any shape, taken in float64. layers: L >= 0 hidden layers.

    References: Cho & Saul (2009), "Kernel methods for deep learning", NeurIPS, equation 6 (order 1).

    Example:
        >>> value, slope = arc_cosine(torch.tensor([math.pi / 2, 0.0]), 2)
        >>> [round(v, 6) for v in value.tolist()], round(slope[1].item(), 6)
        ([0.493731, 1.0], 1.0)
    """
    t = angle.double()
    short, slope = 2 * (t / 2).sin().square(), torch.ones_like(t)
    for _ in range(layers):
        slope = slope * (1 - t / math.pi)
        short = (short + (t * t.cos() - t.sin()) / math.pi).clamp(0, 2)
        t = 2 * (short / 2).sqrt().clamp(max=1).asin()
    return 1 - short, slope


def linear_quantile(share: float, d: int) -> float:
    """The quantile of the relative linear step lin = |F| / sqrt(F^2 + G^2), F ~ N(0, 1), G ~ chi_{d-1}: lin^2 ~ Beta(1/2, (d-1)/2).

    The law holds at infinite width and every depth. sqrt(d) times the median tends to 0.6745, that of |N(0, 1)|.

    Example:
        >>> round(linear_quantile(0.5, 1024) * 32, 3)
        0.675
    """
    from scipy.special import betaincinv

    return math.sqrt(float(betaincinv(0.5, (d - 1) / 2, share))) if d > 1 else 1.0


@dataclass(frozen=True)
class LineLaw:
    """Draws from the law of f along the line of its gradient.

    Arguments:
        linear: (n,) relative linear steps. crossing: (n,) relative steps eps* of the first sign change, inf where there is none up to
            the end of the line. residual: (n,) f at the linear step over f at x.
    """

    linear: np.ndarray
    crossing: np.ndarray
    residual: np.ndarray

    def flip_rate(self, factor: float = math.inf, most: float = 0.5) -> float:
        """P(eps* <= factor * lin and eps* <= most)."""
        return float(np.mean(self.crossing <= np.minimum(factor * self.linear, most)))


@lru_cache(maxsize=256)
def line_law(d: int, layers: int, *, classes: int = 2, samples: int = 20_000, most: float = 0.5, points: int = 160) -> LineLaw:
    """The sign change along the gradient of a ReLU network of infinite width with L hidden layers: exact, for any depth.

    At an angle t from x towards -sign(F) grad f, on the circle through both,

        sign(F) f(t) = |F| kappa_L(cos t) - G sin t kappa'_L(cos t) + R(t),         F ~ N(0, 1),  G ~ chi_{d-1},
        Cov R(t, t') = kappa_L(cos(t - t')) - kappa_L(cos t) kappa_L(cos t') - sin t sin t' kappa'_L(cos t) kappa'_L(cos t'),

    and the relative step there is eps = tan t / (cos a + tan t sin a), sin a = lin = |F| / sqrt(F^2 + G^2). Being positively
    homogeneous, f changes its sign on the circle where it does on the line. R is drawn on a geometric grid of t.

    Arguments:
        d: numbers of one input, at least 2. classes: K outputs; f is then the lead of the largest output over the second at x, over
            sqrt(2), which for K = 2 has the law of |F| and is smaller for more. most: the largest relative step.

    References: Montanari & Wu (2022), "Adversarial examples in random neural networks with general activations", arXiv 2203.17209
        (Gaussian conditioning on f and its gradient). Cho & Saul (2009), "Kernel methods for deep learning".

    Example:
        >>> round(line_law(64, 8).flip_rate(), 1)
        0.8
    """
    draws = derive(0, "line_law", d, layers, classes, ids=range(samples))
    value = _leads(classes, draws.at("value").normal(classes if classes > 2 else 1, dtype=torch.float64))
    steep = chi_squared(torch.full((samples,), max(d - 1, 0)), draws.at("gradient")).sqrt()
    linear = value / (value.square() + steep.square()).sqrt()
    angles = torch.from_numpy(np.geomspace(0.02 * most / math.sqrt(d), math.asin(min(most, 0.9999)), points))  # eps = most needs no more
    rest = draws.at("rest").normal(points, dtype=torch.float64) @ _root(angles, layers).T
    kappa, slope = arc_cosine(angles, layers)
    f = value[:, None] * kappa - steep[:, None] * angles.sin() * slope + rest
    leaning = (1 - linear.square()).sqrt()[:, None] + angles.tan() * linear[:, None]
    eps = angles.tan() / leaning
    crossing = _first_zero(torch.cat((value[:, None], f), 1), torch.cat((torch.zeros_like(value)[:, None], eps), 1))
    crossing = torch.where(crossing <= most, crossing, torch.inf)
    return LineLaw(linear.numpy(), crossing.numpy(), _at_linear(value, linear, steep, layers, draws))


def _leads(classes: int, z: Tensor) -> Tensor:
    """(n,) leads of the largest of K independent outputs over the second, over sqrt(2), so that two of them give |N(0, 1)|."""
    if classes <= 2:
        return z[:, 0].abs()
    top = z.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]) / math.sqrt(2)


def _root(angles: Tensor, layers: int) -> Tensor:
    """A square root of the covariance of R; what rounding made negative is cut off."""
    kappa, slope = arc_cosine(angles, layers)
    own = angles.sin() * slope
    gaps, _ = arc_cosine((angles[:, None] - angles).abs(), layers)
    values, vectors = torch.linalg.eigh(gaps - torch.outer(kappa, kappa) - torch.outer(own, own))
    return vectors * values.clamp(min=0).sqrt()


def _first_zero(f: Tensor, eps: Tensor) -> Tensor:
    """Where the first sign change lies, interpolated between the grid's points; inf where there is none."""
    below = f < 0
    first = below.to(torch.int8).argmax(1, keepdim=True)
    previous = (first - 1).clamp(min=0)
    a, b = f.gather(1, previous), f.gather(1, first)
    start, stop = eps.gather(1, previous), eps.gather(1, first)
    at = start + (stop - start) * a / (a - b).clamp(min=1e-300)
    return torch.where(below.any(1), at[:, 0], torch.inf)


def _at_linear(value: Tensor, linear: Tensor, steep: Tensor, layers: int, draws: Draws) -> np.ndarray:
    """f at the linear step over f at x, for each draw: the angle there has the sine lin, and the point the length cos."""
    t = linear.clamp(max=1 - 1e-15).asin()
    kappa, slope = arc_cosine(t, layers)
    variance = (1 - kappa.square() - (t.sin() * slope).square()).clamp(min=0)
    noise = draws.at("residual").normal(1, dtype=torch.float64)[:, 0]
    f = value * kappa - steep * t.sin() * slope + variance.sqrt() * noise
    return (t.cos() * f / value.clamp(min=1e-300)).numpy()


def mean_residual(linear: float, layers: int) -> float:
    """The mean of f at the linear step over f at x, given lin: c (kappa_L(c) - c kappa'_L(c)), c = sqrt(1 - lin^2).

    Positive: the linear step undershoots on average, which is why a factor above 1 is needed.

    Example:
        >>> lin = 0.1
        >>> round(mean_residual(lin, 1), 6) == round(math.sqrt(1 - lin**2) * lin / math.pi, 6)
        True
    """
    kappa, slope = arc_cosine(torch.tensor(math.asin(linear), dtype=torch.float64), layers)
    c = math.sqrt(1 - linear**2)
    return c * (float(kappa) - c * float(slope))


def sphere_law(x: Tensor, layers: int, samples: int) -> tuple[float, float]:
    """Share of networks of one sign on all of the points x (m, d), and the median of std / rms of f over them, at infinite width.

    f is Gaussian there with covariance kappa_L of the angles between the points.

    Example:
        >>> one_sign, spread = sphere_law(torch.eye(2, dtype=torch.float64), 64, 4000)
        >>> one_sign > 0.9 and spread < 0.1
        True
    """
    unit = x.double() / x.double().norm(dim=1, keepdim=True)
    gap = (unit[:, None] - unit).norm(dim=2)
    covariance, _ = arc_cosine(2 * (gap / 2).clamp(max=1).asin(), layers)
    values, vectors = torch.linalg.eigh(covariance)
    z = derive(0, "sphere_law", layers, ids=range(samples)).normal(len(x), dtype=torch.float64)
    f = z @ (vectors * values.clamp(min=0).sqrt()).T
    return float((f.sign().sum(1).abs() == len(x)).double().mean()), float(relative_spread(f).median())


def relative_spread(f: Tensor) -> Tensor:
    """std / rms of each row of (n, m) values: 0 for a constant, 1 for values of mean 0; NaN where all are 0."""
    rms = f.double().square().mean(1).sqrt()
    return torch.where(rms > 0, f.double().std(1, correction=0) / rms.clamp(min=1e-300), torch.nan)
