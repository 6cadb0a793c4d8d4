"""The exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import get_ema_multi_avg_fn


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Everything a forward pass reads: parameters and buffers, also those that are not saved; tied ones once."""
    return {**{name: p.detach() for name, p in module.named_parameters()}, **dict(module.named_buffers())}


class Average:
    """A moving average of a module's weights, and of the running means and variances of its batch normalisations.

        a <- d_t a + (1 - d_t) w,   d_t = min(decay, (1 + t) / (10 + t)),   t = 1, 2, ... the step

    The ramp d_t forgets the initial weights, which at the plain decay would outweigh a short training. Other buffers, such as
    counters and masks, are copied.

    Arguments:
        decay: between 0 and 1.

    References: Polyak & Juditsky (1992), "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control Optim. 30(4),
        https://doi.org/10.1137/0330046 (averaging; uniform there). The ramp is that of TensorFlow's
        `tf.train.ExponentialMovingAverage(decay, num_updates)`.

    Example:
        >>> module = nn.Linear(1, 1, bias=False)
        >>> average = Average(module, decay=0.9)
        >>> with torch.no_grad():
        ...     before = module.weight.clone()
        ...     after = module.weight.add_(1)
        >>> average.update(module, step=1)
        >>> round((average.tensors["weight"] - before).item(), 4)         # 1 - 2/11
        0.8182
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.clone() for name, value in tensors_of(module).items()}
        running = {
            f"{path}.{name}" if path else name
            for path, part in module.named_modules()
            if isinstance(part, _NormBase)
            for name in ("running_mean", "running_var")
        }
        weights = {name for name, _ in module.named_parameters()}
        self.averaged = [name for name, value in self.tensors.items() if name in weights | running and value.is_floating_point()]
        self.copied = [name for name in self.tensors if name not in self.averaged]

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step 1, 2, ..."""
        now = tensors_of(module)
        decay = min(self.decay, (1 + step) / (10 + step))
        take_in = get_ema_multi_avg_fn(decay)
        take_in([self.tensors[name] for name in self.averaged], [now[name] for name in self.averaged], step)
        for name in self.copied:
            self.tensors[name].copy_(now[name])
