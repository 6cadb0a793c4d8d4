"""Backward pass differentiable approximation: attacks on a network one part of which has a useless gradient."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from brinell.core.draws import Draws
from brinell.core.errors import NetworkError
from brinell.core.network import module_of
from brinell.core.perturbation import Around, Attempt

SUBSTITUTES = {
    "identity": lambda x: x, "clamp": lambda x: x.clamp(0, 1), "hardtanh": F.hardtanh, "relu": F.relu, "softplus": F.softplus,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid,
}  # fmt: skip
"""Functions whose derivative may stand in for that of a module, by name; all keep the shape."""


class BackwardAs(Around, name="backward_as"):
    """Another attack with the derivative of one module replaced by that of a smooth function (BPDA): is a gradient merely hidden?

        forwards:  h(u), the module's own output;      backwards:  g'(u), the derivative of the substitute g

    `identity` is right for rounding, JPEG, median filters and other steps with h(u) close to u; `clamp` is the identity inside [0, 1]
    and flat outside, `hardtanh` the same on [-1, 1]; `relu` and `softplus` stand in for step and spike functions, `tanh` and `sigmoid`
    for signs and thresholds.

    Arguments:
        attack: what climbs; threat and goal are its. module: the path of the module inside the network, as in
            `named_modules()`. substitute: g.

    Raises:
        NetworkError: the network has no module at this path, or the module's output has another shape than its input.

    References: Athalye, Carlini & Wagner (2018), "Obfuscated Gradients Give a False Sense of Security", ICML, arXiv 1802.00420,
        section 4.1.

    Example:
        >>> import brinell as br
        >>> br.parse("backward_as(attack=fgsm, module='quantise')").spec()
        'backward_as(attack=fgsm(threat=ball(eps=8/255, norm=inf)), module=quantise)'
    """

    module: str = Field(min_length=1)
    substitute: Literal["identity", "clamp", "hardtanh", "relu", "softplus", "tanh", "sigmoid"] = "identity"

    @property
    def cost(self) -> tuple[int, int]:
        return self.attack.cost

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor | Attempt:
        whole = module_of(net)
        known = {} if whole is None else dict(whole.named_modules())
        if self.module not in known:
            there = ", ".join(name for name in known if name)[:300] or "none"
            raise NetworkError(f"{self.spec()}: the network has no module {self.module!r}; it has {there}")
        hook = known[self.module].register_forward_hook(self._replace)
        try:
            return self.attack(net, x, y, draws=draws)
        finally:
            hook.remove()

    def _replace(self, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
        if not (inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor) and inputs[0].shape == output.shape):
            shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in (*inputs[:1], output)]
            raise NetworkError(
                f"{self.spec()}: the module's input and output differ in shape ({shapes}), so no {self.substitute} can stand in"
            )
        return _Straight.apply(output.detach(), SUBSTITUTES[self.substitute](inputs[0]).to(output.dtype))


class _Straight(torch.autograd.Function):
    """The first argument forwards, the derivative of the second backwards."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, stand_in: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]
