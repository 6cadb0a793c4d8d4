"""Which arithmetic the drafting passes of an attack run in: bfloat16 where a short timing of the network says that it gains.

An attack proposes and float32 disposes: the first steps of an ascent may run in bfloat16 (`ascent.ascend(draft=...)`), every
success is confirmed by a float32 pass, and the last steps are float32 throughout. The choice is made once per network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from brinell.core.network import logits_of, module_of

GAIN = 1.2
"""How many times faster than float32 a bfloat16 pass must be; confirming what it proposes costs some passes."""
SMALL = 100_000
"""Networks with fewer parameters are not drafted on: their passes are too short to time, and short anyway."""
_ROWS, _ROUNDS = 32, 3
_CHOICE = "_brinell_drafts"
"""Where a module keeps the answer: its copies have it too, also those in other processes, which would time it anew."""


def drafts(net: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether attacks on this network draft in bfloat16; the first call times it, later ones repeat the answer.

    What is timed is a forward and a backward pass of 32 copies of the first sample, three times in each arithmetic, taking turns;
    the fastest of each count. A plain function, a network of less than `SMALL` parameters or one that fails in bfloat16 is not
    drafted on, nor is a float64 input.

    Example:
        >>> drafts(lambda x: x, torch.rand(1, 4))
        False
    """
    module = module_of(net)
    if module is None or x.dtype != torch.float32 or not len(x):
        return False
    if _CHOICE not in module.__dict__:
        module.__dict__[_CHOICE] = _gains(module, x)
    return module.__dict__[_CHOICE]


def decide(net: Any, choice: bool) -> None:
    """Fix the answer for a network (or any object around one), as an earlier run recorded it."""
    module = module_of(net)
    if module is not None:
        module.__dict__[_CHOICE] = choice


def _gains(module: nn.Module, x: Tensor) -> bool:
    if sum(p.numel() for p in module.parameters()) < SMALL:
        return False
    z = x[:1].detach().expand(_ROWS, *x.shape[1:]).contiguous()
    best = {False: torch.inf, True: torch.inf}
    for number in range(2 * (_ROUNDS + 1)):  # the first round warms up
        low = bool(number % 2)
        try:
            seconds = _seconds(module, z, low)
        except RuntimeError:
            return False  # no gradient, an operation torch has not got in bfloat16, or code that does not accept it
        if number > 1:
            best[low] = min(best[low], seconds)
    return best[False] >= GAIN * best[True]


def _seconds(module: nn.Module, z: Tensor, low: bool) -> float:
    began = time.perf_counter()
    with torch.enable_grad(), drafting(z, low):
        z = z.requires_grad_()
        torch.autograd.grad(logits_of(module(z), z).float().sum(), z)
    if z.is_cuda:
        torch.cuda.synchronize(z.device)
    return time.perf_counter() - began


def drafting(z: Tensor, low: bool = True) -> torch.autocast:
    """The context in which the layers of a network compute in bfloat16 (`low`) or as they are."""
    return torch.autocast(z.device.type, torch.bfloat16, enabled=low)
