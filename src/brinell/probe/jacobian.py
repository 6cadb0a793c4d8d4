"""The input-output Jacobian: how strongly do the logits depend on the input?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.measurement import Bound, Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Sum, Tally


def jacobian_norms(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """| J(x) |_F of every sample, J = d f(x) / dx of shape (K, d): one forward and K backward passes. (n,) float64.

    Example:
        >>> jacobian_norms(lambda x: x @ torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.ones(1, 2))
        tensor([5.], dtype=torch.float64)
    """
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        out = function(z)
        squares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for k in range(out.shape[1]):
            squares += _squared(out[:, k].sum(), z, last=k + 1 == out.shape[1])
    return squares.sqrt()


def projected_squares(function: Callable[[Tensor], Tensor], x: Tensor, draws: Draws, projections: int) -> Tensor:
    """Unbiased estimates of | J(x) |_F^2: K times the mean of | v^T J |_2^2 over random unit vectors v of R^K. (n,) float64.

    Arguments:
        draws: gives every sample its own directions. projections: backward passes.

    References: Hoffman, Roberts & Yaida (2019), "Robust learning with Jacobian regularization", arXiv 1908.02729, equation 9.
    """
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        out = function(z)
        squares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for at in range(projections):
            v = draws.normal(out.shape[1]).to(out)
            v = v / v.norm(dim=1, keepdim=True)
            squares += _squared((out * v).sum(), z, last=at + 1 == projections)
    return squares * out.shape[1] / projections


def _squared(total: Tensor, z: Tensor, *, last: bool) -> Tensor:
    if not total.requires_grad:
        return torch.zeros(len(z), dtype=torch.float64, device=z.device)
    (g,) = torch.autograd.grad(total, z, retain_graph=not last)
    return norms.length(g.double(), 2).square()


class Jacobian(Probe, name="jacobian"):
    """The Frobenius norm of the Jacobian of the network's output in its input.

    Readings: `jacobian_norm`, mean over samples of | J(x) |_F (exact passes only), and `jacobian_rms`, root of the mean of | J(x) |_F^2,
    which projections estimate without bias in the square. A network whose output does not depend on its input has 0.

    Arguments:
        of: the logits, or their softmax. projections: 0 for the exact norm by K backward passes; else as many random directions.

    References: Hoffman, Roberts & Yaida (2019), "Robust learning with Jacobian regularization", arXiv 1908.02729.

    Example:
        >>> Jacobian(projections=3).spec()
        'jacobian(projections=3)'
    """

    of: Literal["logits", "probabilities"] = "logits"
    projections: int = Field(default=0, ge=0)

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    @property
    def cost(self) -> tuple[int, int]:
        return 1, self.projections or 10

    def observe(self, view: View, *, draws: Draws) -> Tally:
        net = view.net or _no_network

        def output(z: Tensor) -> Tensor:
            return net(z).softmax(1) if self.of == "probabilities" else net(z)

        if self.projections:
            squares = projected_squares(output, view.z, draws, self.projections)
            return Sum.of(n=torch.tensor(len(squares)), squares=squares.sum())
        sizes = jacobian_norms(output, view.z)
        return Sum.of(n=torch.tensor(len(sizes)), squares=sizes.square().sum(), sizes=sizes.sum())

    def read(self, tally: Tally) -> list[Reading]:
        if "n" not in tally:
            return [Reading.undefined("jacobian_norm", "there is no sample to measure")]
        n = int(tally["n"])
        if not bool(torch.isfinite(tally["squares"])):
            return [Reading.undefined(name, "a gradient is NaN or inf", n=n) for name in ("jacobian_norm", "jacobian_rms")]
        bound = Bound.ESTIMATE if self.projections else Bound.EXACT
        rms = Reading("jacobian_rms", (float(tally["squares"]) / n) ** 0.5, bound=bound, n=n)
        return [rms] if self.projections else [Reading("jacobian_norm", float(tally["sizes"]) / n, n=n), rms]


def _no_network(_: Tensor) -> Tensor:
    raise TypeError("the jacobian probe needs the network in its view")
