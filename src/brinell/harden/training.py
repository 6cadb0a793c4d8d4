"""A training under way: what changes from step to step, what a checkpoint holds, and what is returned in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from brinell.core.errors import StoreError
from brinell.harden.average import Average, tensors_of


class Training:
    """A module with its optimizer, the moving average of its weights, and the best epoch so far.

    Arguments:
        average: None where no average is kept. epoch: finished epochs. best: of the best one, `epoch` (from 1), `accuracy` and
            `loss` on held-out samples; empty until one was judged. remembered: what a regulariser keeps from step to step.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> None:
        self.module, self.optimizer, self.average = module, optimizer, average
        self.epoch = 0
        self.best: dict[str, float] = {}
        self._best: dict[str, Tensor] = {}
        self.remembered: dict[str, Tensor] = {}

    def judge(self, accuracy: float, loss: float) -> None:
        """Keep the answer of the epoch that has just finished if it is the best so far."""
        if not self.best or (accuracy, -loss) > (self.best["accuracy"], -self.best["loss"]):
            self.best = {"epoch": self.epoch, "accuracy": accuracy, "loss": loss}
            self._best = {name: value.clone() for name, value in self._answer().items()}

    @contextmanager
    def answering(self) -> Iterator[None]:
        """The module as it would be returned now, in evaluation mode; inside the block only."""
        if self.average is None:
            self.module.eval()
            yield
            return
        kept = {name: value.clone() for name, value in tensors_of(self.module).items()}
        _put(self.module, self.average.tensors)
        self.module.eval()
        try:
            yield
        finally:
            _put(self.module, kept)

    def finish(self) -> None:
        """Put the weights that are returned into the module: those of the best epoch, or the average, or the last ones."""
        _put(self.module, self._best or self._answer())

    def finite(self) -> bool:
        """Are all parameters finite?"""
        return all(bool(p.isfinite().all()) for p in self.module.parameters())

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All tensors by name, and the rest as JSON can hold it."""
        tensors = {f"module/{name}": value for name, value in tensors_of(self.module).items()}
        for name, p in self.module.named_parameters():
            entries = self.optimizer.state.get(p, {}).items()
            tensors |= {f"optimizer/{entry}/{name}": value for entry, value in entries if isinstance(value, Tensor)}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.tensors.items()}
        tensors |= {f"best/{name}": value for name, value in self._best.items()}
        tensors |= {f"remembered/{name}": value for name, value in self.remembered.items()}
        return tensors, {"epoch": self.epoch, "best": self.best}

    def unpack(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Take up what `pack` gave. Tensors keep the memory layout of their parameter, on which kernels, and so last bits, depend.

        Raises:
            StoreError: a tensor is missing or of another shape; nothing else may then be done with this training.
        """
        try:
            self._unpack(tensors, about)
        except (KeyError, TypeError, RuntimeError) as error:
            raise StoreError(f"the checkpoint does not hold the state of this training ({error}); delete it to train anew") from error

    def _unpack(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "optimizer": {}, "average": {}, "best": {}, "remembered": {}}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        _put(self.module, parts["module"])
        if self.average is not None:
            for name, value in self.average.tensors.items():
                value.copy_(parts["average"][name])
        own = tensors_of(self.module)
        self._best = {name: torch.empty_like(own[name]).copy_(value) for name, value in parts["best"].items()}
        parameters = dict(self.module.named_parameters())
        for key, value in parts["optimizer"].items():
            entry, _, name = key.partition("/")
            p = parameters[name].detach()
            self.optimizer.state[parameters[name]][entry] = value.clone() if entry == "step" else torch.empty_like(p).copy_(value)
        device = next(self.module.parameters()).device
        self.remembered.update({name: value.to(device) for name, value in parts["remembered"].items()})
        self.epoch, self.best = int(about["epoch"]), dict(about["best"])

    def _answer(self) -> dict[str, Tensor]:
        return tensors_of(self.module) if self.average is None else self.average.tensors


@torch.no_grad()
def _put(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors_of(module).items():
        value.copy_(tensors[name])
