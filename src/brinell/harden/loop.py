"""The steps and epochs of a training, and what others may put into them: inputs, a regulariser, a progress display."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brinell.core.dataset import Dataset
from brinell.core.draws import Draws, derive
from brinell.core.errors import BrinellError, DataError
from brinell.core.network import Network
from brinell.core.perturbation import Attempt, Perturbation, points
from brinell.core.probe import RECTIFIERS
from brinell.core.record import pooled, record
from brinell.harden.batches import Held, batches, corrupted, count_batches, held, moved, shuffled
from brinell.harden.training import Training

if TYPE_CHECKING:
    from brinell.harden.fit import Fit

_JUDGED_AT_ONCE = 512


class Progress(Protocol):
    """What a training tells while it runs; amounts are samples passed through the network."""

    def start(self, title: str, total: float, done: float = 0.0) -> None: ...
    def advance(self, amount: float, text: str = "") -> None: ...
    def say(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Inputs(Protocol):
    """Makes the inputs of a step, (n, *d) from (n, *d): an attack, say. Every perturbation is one."""

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor | Attempt: ...


@dataclass(frozen=True)
class Step:
    """One step of a training, as its regulariser sees it.

    Arguments:
        net: the network, in training mode. x: (n, *d) what it was given; gradients reach it where the inputs hook returned a leaf that
            requires them. y: (n,) labels. logits: (n, K). activations: (n, u) means over positions of every recorded ReLU by
            name. epoch: counts from 0. draws: the samples' own randomness in this step.
    """

    net: Network
    x: Tensor
    y: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor]
    epoch: int
    draws: Draws


Regularizer = Callable[[Step], Tensor]
"""regularizer(step): a scalar added to the loss; logits and activations have their graph. One that remembers something from step
to step keeps it in an attribute `tensors`, a dict of tensors, which then is part of checkpoints."""


class Diverged(BrinellError, ArithmeticError):
    """A training whose loss or weights stopped being finite."""


class Loop:
    """The epochs of one training: a recipe applied to a network and its samples.

    Arguments:
        recipe, title: what is done, and what messages call it. training: changes as the loop goes on. net: the network in it, with
            its weights in `layout`. samples: to train on. judges: held out, or None. seed, device, regularizer, layers, inputs:
            see `Fit.__call__`.
    """

    def __init__(
        self, recipe: Fit, title: str, training: Training, net: Network, samples: Dataset, judges: Dataset | None, *, seed: int,
        device: torch.device, regularizer: Regularizer | None, layers: tuple[str, ...] | None, inputs: Inputs | None,
    ) -> None:  # fmt: skip
        self.recipe, self.title, self.training, self.net, self.samples = recipe, title, training, net, samples
        self.seed, self.device = seed, device
        self.regularizer, self.layers = regularizer, layers
        self.inputs = self._prepared(inputs) if isinstance(inputs, Perturbation) else inputs
        training.remembered = getattr(regularizer, "tensors", {})
        self.x, self.y = held(samples, device), samples.labels().to(device)
        self.judges = None if judges is None else (judges, held(judges, device))
        self.per_epoch = count_batches(len(samples), recipe.batch_size)
        self.look = 1 if device.type == "cpu" else 32  # steps between looks at the loss: each one waits for the device
        self.layout = layout_of(net.module)
        self.augment = tuple(self._prepared(perturbation) for perturbation in recipe.augment)

    def _prepared(self, item: Perturbation) -> Perturbation:
        if item.state is not None:
            return item
        draws = derive(self.seed, "prepare", item.spec(), ids=self.samples.ids)
        return item.prepared(item.prepare(self.net, self.samples, draws=draws))

    def epoch(self, progress: Progress | None) -> None:
        """One pass over the samples, and the judgement on the held-out ones.

        Raises:
            Diverged: the loss or a weight is not finite.
        """
        training, epoch = self.training, self.training.epoch
        training.module.train()
        where = f"epoch {epoch + 1} of {self.recipe.epochs}"
        unseen: list[Tensor] = []
        for number, rows in enumerate(batches(shuffled(self.samples.ids, self.seed, epoch), self.recipe.batch_size), 1):
            unseen.append(self._step(rows, epoch * self.per_epoch + number - 1))
            if len(unseen) == self.look or number == self.per_epoch:
                losses = torch.stack(unseen).tolist()
                unseen.clear()
                self._check(losses, number)
                where = f"epoch {epoch + 1} of {self.recipe.epochs}, loss {losses[-1]:.3f}"
            if progress is not None:
                progress.advance(len(rows), where)
        if not training.finite():
            raise self._diverged("a weight is not finite", self.per_epoch)
        training.epoch += 1
        if self.judges is not None:
            with training.answering():
                training.judge(*self._judgement(*self.judges))

    def _step(self, rows: np.ndarray, step: int) -> Tensor:
        recipe, training = self.recipe, self.training
        for group in training.optimizer.param_groups:
            group["lr"] = recipe.rate(step, self.per_epoch)
        draws = derive(self.seed, "fit", training.epoch, ids=self.samples.ids[rows], device=self.device)
        y = self.y[torch.from_numpy(rows).to(self.device)]
        x = self._made(self._augmented(self.x(rows), y, draws), y, draws)
        activations: Mapping[str, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.amp))
            if self.regularizer is not None and self.layers is not None:
                activations = stack.enter_context(record(self.net, self.layers, kinds=RECTIFIERS, keep=pooled))
            logits = self.net(x)
        logits = logits.float() if recipe.amp else logits
        loss = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
        if self.regularizer is not None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.amp):
                loss = loss + self.regularizer(Step(self.net, x, y, logits, activations, training.epoch, draws.at("regularizer")))
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(training.module.parameters(), recipe.clip)
        training.optimizer.step()
        if training.average is not None:
            training.average.update(training.module, step + 1)
        return loss.detach()

    def _augmented(self, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        if self.recipe.shift or self.recipe.flip:
            x = moved(x, draws.at("moved"), shift=self.recipe.shift, flip=self.recipe.flip)
        return corrupted(x, y, draws.at("corrupted"), self.augment) if self.augment else x

    def _made(self, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """What the inputs hook makes of the inputs, in the memory layout of the network."""
        if self.inputs is not None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.amp):
                z = points(self.inputs(self.net, x, y, draws=draws.at("inputs")))
            if z.shape != x.shape:
                raise DataError(f"{self.title}: the inputs hook made {tuple(z.shape)} of inputs of shape {tuple(x.shape)}; give one each")
            x = z
        return x.contiguous(memory_format=self.layout) if x.ndim == 4 else x

    def _judgement(self, judges: Dataset, read: Held) -> tuple[float, float]:
        """Accuracy and mean cross-entropy on held-out samples; the same draws in every epoch."""
        right, total = 0, 0.0
        for rows in judges.shards(_JUDGED_AT_ONCE):
            y = judges.labels(rows).to(self.device)
            draws = derive(self.seed, "fit.judgement", ids=judges.ids[rows], device=self.device)
            x = self._made(read(rows), y, draws)
            with torch.no_grad():
                logits = self.net(x).double()
            right += int((logits.argmax(1) == y).sum())
            total += float(F.cross_entropy(logits, y, reduction="sum"))
        return right / len(judges), total / len(judges)

    def _check(self, losses: list[float], number: int) -> None:
        """Refuse losses that are not finite, the last of them that of step `number`."""
        for step, loss in enumerate(losses, number - len(losses) + 1):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss}", step)

    def _diverged(self, fact: str, step: int) -> Diverged:
        epoch, rate = self.training.epoch, self.recipe.rate(self.training.epoch * self.per_epoch + step - 1, self.per_epoch)
        others = ", or set amp=False" if self.recipe.amp else ""
        return Diverged(
            f"{self.title}: {fact} at epoch {epoch + 1} of {self.recipe.epochs}, step {step} of {self.per_epoch} (learning rate "
            f"{rate:.3g}). Lower lr, add warmup or clip=1{others}; if that changes nothing, look for extreme inputs or weights"
        )


def layout_of(module: nn.Module) -> torch.memory_format:
    """Channels-last for a network with convolutions of images (4-D weights, none of 5), the plain layout for others."""
    ranks = {p.ndim for p in module.parameters()}
    return torch.channels_last if 4 in ranks and 5 not in ranks else torch.contiguous_format
