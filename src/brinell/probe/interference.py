"""What a network does besides computing logits: looking for gradients, changing itself, and answering differently when watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from brinell.core.draws import Draws
from brinell.core.goal import margin

Net = Callable[[Tensor], Tensor]


@contextmanager
def gradient_calls() -> Iterator[list[str]]:
    """Collects the names of autograd's entry points that are called inside: a forward pass that takes gradients adapts to its input.

    Example:
        >>> with gradient_calls() as calls:
        ...     x = torch.ones(2, requires_grad=True)
        ...     _ = torch.autograd.grad(x.sum(), x)
        >>> calls
        ['grad']
    """
    calls: list[str] = []
    known = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def counting(name: str) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return known[name](*args, **kwargs)

        return counted

    for name in known:
        setattr(torch.autograd, name, counting(name))
    try:
        yield calls
    finally:
        for name, function in known.items():
            setattr(torch.autograd, name, function)


def state_version(module: nn.Module | None) -> tuple[tuple[int, int], ...]:
    """Changes whenever a parameter or buffer is written to or replaced."""
    if module is None:
        return ()
    held = (*module.parameters(), *module.buffers())
    return tuple((part.data_ptr(), part._version) for part in held)


def instability(
    net: Net, x: Tensor, y: Tensor, logits: Tensor, *, side: float, count: int, low: float, high: float, draws: Draws
) -> Tensor:
    """(n,) in [0, 1]: how much the margin changes over a small box, relative to itself.

        mean over `count` points of min(1, |m(z) - m(x)| / |m(x)|),    z uniform in a box of the given side around x, in the domain

    Smooth networks have small values away from their decision boundary; shattered gradients make them large everywhere.

    References: Pintor, Demetrio, Sotgiu, Demontis, Carlini, Biggio & Roli (2022), "Indicators of Attack Failure", NeurIPS,
        arXiv 2106.09947 (unstable predictions; with the attack's own loss, at the attack's end).
    """
    before = margin(logits.double(), y)
    total = torch.zeros_like(before)
    for _ in range(count):
        z = (x + draws.uniform(*x.shape[1:], low=-side / 2, high=side / 2).to(x.dtype)).clamp(low, high)
        change = (margin(net(z).double(), y) - before).abs()
        total += torch.nan_to_num((change / before.abs().clamp(min=1e-12)).clamp(max=1), nan=1.0)
    return total / count
