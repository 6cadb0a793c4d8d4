"""The line along the gradient: how far does one walk from a sample, straight downhill, until the sign of the output changes?

An `Output` takes m points of each of n samples at once, (n, m, *d), and gives their values, (n, m). So a trained network, whose
value may be the lead of one class over another, and n random networks with a sample each take the same questions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from brinell.core import norms
from brinell.core.errors import DataError

Output = Callable[[Tensor], Tensor]
"""(n, m, *d) points, m of each sample, to (n, m) values."""

_AT_ONCE = 64
_PARTS = 16


def value_and_gradient(output: Output, x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and grad f(x) of every sample, by one pass each way; entries of the gradient that are not finite become 0.

    Arguments:
        x: (n, *d).

    Returns:
        value: (n,) in the dtype of the output. gradient: (n, *d), 0 where the output does not depend on x.

    Raises:
        DataError: the output has another shape than (n, 1).

    Example:
        >>> value_and_gradient(lambda z: (z * torch.tensor([3.0, 4.0])).sum(-1), torch.ones(1, 2))
        (tensor([7.]), tensor([[3., 4.]]))
    """
    with torch.enable_grad():
        z = x.detach()[:, None].requires_grad_()
        value = output(z)
        if value.shape != (len(x), 1):
            raise DataError(f"an output of one point for each of {len(x)} samples has shape ({len(x)}, 1); got {tuple(value.shape)}")
        gradient = torch.zeros_like(z)
        if value.requires_grad:
            (found,) = torch.autograd.grad(value.sum(), z, allow_unused=True)
            gradient = gradient if found is None else torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
    return value.detach()[:, 0], gradient[:, 0]


def relative_step(value: Tensor, gradient: Tensor, x: Tensor) -> Tensor:
    """lin = |f(x)| / (|grad f(x)| |x|), (n,) float64: the way to the sign change if f were linear, over the length of x.

    Always at most 1 for a bias-free ReLU network, for which <x, grad f> = f. NaN where the gradient is 0 (the sample is dead) or x is.

    References: Bartlett, Bubeck & Cherapanamjeri (2021), "Adversarial examples in multi-layer random ReLU networks", arXiv
        2106.12611, introduction.

    Example:
        >>> relative_step(torch.tensor([5.0]), torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    size = norms.length(gradient.double(), 2) * norms.length(x.double(), 2)
    return torch.where(size > 0, value.double().abs() / size.clamp(min=1e-300), torch.nan)


def downhill(value: Tensor, gradient: Tensor) -> Tensor:
    """The unit vector -sign(f) grad f / |grad f|, (n, *d); 0 where f or its gradient is 0."""
    wide = (-1, *(1,) * (gradient.ndim - 1))
    size = norms.length(gradient.double(), 2)
    share = torch.where(size > 0, -value.double().sign() / size.clamp(min=1e-300), 0.0)
    return (gradient.double() * share.reshape(wide)).to(gradient.dtype)


def along(x: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
    """The points x + t u: (n, m, *d) for m lengths (n, m) of each sample."""
    return x[:, None] + direction[:, None] * lengths.to(x.dtype).reshape(*lengths.shape, *(1,) * (x.ndim - 1))


def line_lengths(linear: Tensor, size: Tensor, most: float, near: int = 200, far: int = 50) -> Tensor:
    """Where a line is looked at: `near` equal steps up to four times the linear step, then `far` more up to `most`.

    Arguments:
        linear: (n,) relative linear steps, NaN counting as 0. size: (n,) lengths of the samples. most: largest relative step.

    Returns:
        (n, near + far) float64 lengths, in ascending order.

    Example:
        >>> line_lengths(torch.tensor([0.05]), torch.tensor([2.0]), 0.5, near=4, far=2)
        tensor([[0.1000, 0.2000, 0.3000, 0.4000, 0.7000, 1.0000]], dtype=torch.float64)
    """
    four = 4 * torch.nan_to_num(linear.double())[:, None]
    steps = torch.arange(1, max(near, far) + 1, dtype=torch.float64, device=linear.device)
    rest = (most - four).clamp(min=0)
    return torch.cat((four * steps[:near] / max(near, 1), four + rest * steps[:far] / max(far, 1)), 1) * size.double()[:, None]


def first_crossing(
    output: Output, x: Tensor, value: Tensor, direction: Tensor, lengths: Tensor, *, rounds: int = 4
) -> tuple[Tensor, Tensor]:
    """The first sign change of f on a line, bracketed: the last length known before it and the first one known beyond it.

    All lengths are looked at in their order, 64 points of each sample in one batch, until every sample has changed its sign; then
    each bracket is cut into sixteen, `rounds` times. Sign changes closer together than two lengths may be missed.

    Arguments:
        value: (n,) f(x). direction: (n, *d). lengths: (n, m) ascending and positive. rounds: each costs 15 forward passes a sample.

    Returns:
        (before, beyond), each (n,) float64: f has at `beyond` the other sign than at x, strictly, and at `before` not. `beyond` is inf
        where no sign change was seen, and where f(x) is 0; `before` is then the last length looked at.

    Example:
        >>> x, u = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> low, high = first_crossing(lambda z: 1 - 3 * z[..., 0], x, torch.ones(1), u, torch.tensor([[0.2, 0.4, 0.6]]))
        >>> bool(low <= 1 / 3 < high), round(high.item(), 4)
        (True, 0.3333)
    """
    sign = value.sign()[:, None]
    before = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    beyond = torch.full_like(before, torch.inf)
    lengths = lengths.double()
    for start in range(0, lengths.shape[1], _AT_ONCE):
        before, beyond = _narrowed(output, x, sign, direction, lengths[:, start : start + _AT_ONCE], before, beyond)
        if bool(beyond.isfinite().all()):
            break
    shares = torch.arange(1, _PARTS, dtype=torch.float64, device=x.device) / _PARTS
    for _ in range(rounds if bool(beyond.isfinite().any()) else 0):
        inside = before[:, None] + torch.where(beyond.isfinite(), beyond - before, 0.0)[:, None] * shares
        low, high = _narrowed(output, x, sign, direction, inside, before, torch.full_like(beyond, torch.inf))
        open_ = beyond.isinf()
        before, beyond = torch.where(open_, before, low), torch.where(open_, beyond, torch.minimum(high, beyond))
    return before, beyond


def _narrowed(
    output: Output, x: Tensor, sign: Tensor, direction: Tensor, lengths: Tensor, before: Tensor, beyond: Tensor
) -> tuple[Tensor, Tensor]:
    """The bracket after a look at further lengths; those that had a sign change before keep theirs."""
    with torch.no_grad():
        crossed = output(along(x, direction, lengths)) * sign < 0
    found = crossed.any(1)
    first = crossed.to(torch.int8).argmax(1, keepdim=True)
    at = lengths.gather(1, first)[:, 0]
    last = lengths.gather(1, (first - 1).clamp(min=0))[:, 0]
    fresh = beyond.isinf()
    low = torch.where(found, torch.where(first[:, 0] > 0, last, before), lengths[:, -1])
    return torch.where(fresh, low, before), torch.where(fresh & found, at, beyond)
