"""Fit: the one training loop of the laboratory; other trainings give it their inputs and their regulariser."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from brinell.core.component import walk
from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.errors import DataError, NetworkError
from brinell.core.hardening import Hardening
from brinell.core.network import Network
from brinell.core.perturbation import Attack, Perturbation
from brinell.harden.average import Average
from brinell.harden.loop import Inputs, Loop, Progress, Regularizer, layout_of
from brinell.harden.resume import read_state, write_state
from brinell.harden.schedule import Schedule, learning_rate
from brinell.harden.training import Training


class Fit(Hardening, name="fit"):
    """Trains a network on labelled samples by stochastic gradient descent: the baseline every other hardening is held against.

        minimise   mean over the batch of  -sum_k q_k log softmax(f(T(x)))_k,   q = (1 - a) onehot(y) + a / K

    with T the augmentation and a the label smoothing, over `epochs` passes in a new order each. The last batch of an epoch may be
    smaller; a single sample left over joins the batch before it. Same seed, machine and number of threads: same weights.

    Arguments:
        epochs, batch_size: passes over the data, samples per step.
        optimizer: sgd, or adamw. lr: peak learning rate. momentum: of sgd; the first beta of adamw (the second is 0.999).
        nesterov: Nesterov's momentum for sgd (without effect at momentum 0).
        weight_decay: on all trained parameters; for sgd the gradient of weight_decay |w|^2 / 2, for adamw decoupled.
        schedule: of the learning rate, see `learning_rate`. warmup: epochs of rising rate. milestones, gamma: epochs at whose
            start schedule=step multiplies the rate by gamma.
        label_smoothing: a. clip: largest L2 norm of the whole gradient, 0 for none.
        augment: corruptions; each sample gets one of them or none, with equal probability, drawn by (seed, epoch, id).
        shift, flip: images are first moved by up to `shift` pixels each way over a zero border, and mirrored by chance.
        amp: forward passes in bfloat16 where autocast says so; weights and loss stay float32.
        ema: decay of the moving average of the weights that is returned in their place, 0 for none; see `Average`.
        holdout: stratified share of the data kept apart to choose the best epoch, 0 for none: then the last one is returned. The
            epoch of highest accuracy is kept, of equals that of lowest cross-entropy.

    Raises:
        SpecError: a field is out of range, milestones do not fit the schedule, or augment holds an attack.
        DataError: the data and the network do not go together. NetworkError: the network cannot be copied or called.
        StoreError: the checkpoint is of another training. Diverged: loss or weights are not finite; names epoch and step.

    References: Sutskever, Martens, Dahl & Hinton (2013), "On the importance of initialization and momentum in deep learning",
        ICML (Nesterov's form). Loshchilov & Hutter (2019), "Decoupled Weight Decay Regularization", ICLR,
        https://arxiv.org/abs/1711.05101 (adamw). Szegedy et al. (2016), "Rethinking the Inception Architecture", CVPR,
        https://arxiv.org/abs/1512.00567, section 7 (label smoothing).

    Example:
        >>> from brinell.models.loading import load_network
        >>> data = Dataset.from_arrays(torch.tensor([[0.1], [0.2], [0.8], [0.9]]), [0, 0, 1, 1])
        >>> net = Fit(epochs=50, batch_size=4)(load_network("mlp(widths=(8,))", shape=(1,), classes=2), data, seed=0)
        >>> net(data.x()).argmax(1).tolist()
        [0, 0, 1, 1]
        >>> net.notes
        ('randomly initialised (seed 0)', 'trained by fit(batch_size=4, epochs=50) on arrays (4 samples), seed 0')
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Schedule = "cosine"
    warmup: float = Field(default=0.0, ge=0)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0, le=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=0.0, ge=0)
    augment: tuple[Perturbation, ...] = ()
    shift: int = Field(default=0, ge=0)
    flip: bool = False
    amp: bool = False
    ema: float = Field(default=0.0, ge=0, lt=1)
    holdout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Fit:
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup of {self.warmup:g} epochs leaves nothing of epochs={self.epochs}")
        if bool(self.milestones) != (self.schedule == "step"):
            raise ValueError("schedule=step and milestones go together, as in schedule=step, milestones=(30, 60)")
        if any(not 0 < epoch < self.epochs for epoch in self.milestones):
            raise ValueError(f"milestones={self.milestones} must lie in 1..{self.epochs - 1}, below epochs={self.epochs}")
        attacks = [part.spec() for part in walk(self.augment) if isinstance(part, Attack)]
        if attacks:
            raise ValueError(f"augment takes corruptions, which never look at the network; {attacks[0]} is an attack")
        return self

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - options are named, so that a wrong one is an error
        self,
        net: Network | nn.Module,
        data: Dataset,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoint: Path | str | None = None,
        device: torch.device | str = "cpu",
        regularizer: Regularizer | None = None,
        layers: tuple[str, ...] | None = (),
        inputs: Inputs | None = None,
        valid: Dataset | None = None,
        title: str = "",
    ) -> Network:
        """A trained copy of the network, in evaluation mode.

        Arguments:
            seed: of batch order, augmentation, held-out samples, and the network's own randomness (dropout).
            checkpoint: a file that holds the state after every epoch; where it exists the training goes on from it, and ends with
                the same weights as if it had never stopped.
            device: where to train; the result is where the argument was.
            regularizer: added to the loss, see `Regularizer`. layers: the activations it needs by name or pattern,
                () for all, None for none.
            inputs: makes the inputs of every step and of every judgement on held-out samples, after the augmentation.
            valid: samples to choose the best epoch on, instead of `holdout`.
            title: the spec of the hardening this training is part of, for notes and checkpoints; its own by default.
        """
        started = net if isinstance(net, Network) else Network(net)
        title, place = title or self.spec(), torch.device(device)
        file = None if checkpoint is None else Path(checkpoint)
        identity = {
            "hardening": title,
            "fit": self.spec(full=True),
            "versions": self.key().rpartition("@")[2],
            "network": started.digest,
            "data": data.digest,
            "held out": "" if valid is None else valid.digest,
            "seed": seed,
        }
        samples, judges = self._parts(data, valid, seed)
        module, home = _copied(started, title)
        module = module.to(place).to(memory_format=layout_of(module))  # pyright: ignore[reportCallIssue]
        twin, training = Network(module, started.recipe), self._begin(module)
        with _own_randomness(place) as reseed, torch.enable_grad():
            _check_pair(twin, samples, place, title)
            loop = Loop(
                self, title, training, twin, samples, judges, seed=seed, device=place,
                regularizer=regularizer, layers=layers, inputs=inputs,
            )  # fmt: skip
            if file is not None and file.exists():
                training.unpack(*read_state(file, identity))
            if progress is not None:
                progress.start(f"training {started.recipe}", self.epochs * len(samples), training.epoch * len(samples))
            try:
                while training.epoch < self.epochs:
                    reseed(int(derive(seed, "fit.model", training.epoch, ids=[0]).words(1)))
                    loop.epoch(progress)
                    if file is not None:
                        tensors, about = training.pack()
                        write_state(file, tensors, {**identity, **about})
            finally:
                if progress is not None:
                    progress.stop()
        training.finish()
        notes = [note.removesuffix(", not trained") for note in started.notes]
        notes.append(f"trained by {title} on {data.source} ({len(samples)} samples), seed {seed}")
        if judges is not None:
            best = training.best
            notes.append(
                f"epoch {best['epoch']} of {self.epochs} chosen on {len(judges)} held-out samples (accuracy {best['accuracy']:.4f})"
            )
        module = module.to(home).to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
        module.zero_grad(set_to_none=True)
        shape, classes = started.shape or data.shape, started.classes or len(data.classes)
        return Network(module, started.recipe, tuple(notes), started.source, shape=shape, classes=classes)

    def rate(self, step: int, per_epoch: int) -> float:
        """The learning rate of a step, counted from 0 over all epochs of `per_epoch` steps."""
        return learning_rate(
            self.schedule, step, self.epochs * per_epoch, self.lr, warmup=round(self.warmup * per_epoch),
            milestones=tuple(epoch * per_epoch for epoch in self.milestones), gamma=self.gamma,
        )  # fmt: skip

    def _parts(self, data: Dataset, valid: Dataset | None, seed: int) -> tuple[Dataset, Dataset | None]:
        if len(data.shape) != 3 and (self.shift or self.flip):
            raise DataError(f"{self.spec()} moves images, but {data.source} has samples of shape {data.shape}; leave out shift and flip")
        if valid is not None and (valid.shape, valid.classes) != (data.shape, data.classes):
            raise DataError(
                f"the validation set {valid.source} has another shape or other classes than {data.source}; give one of the same"
            )
        if valid is not None or not self.holdout:
            return data, valid
        count = max(round(self.holdout * len(data)), 1)
        if count >= len(data):
            raise DataError(f"{self.spec()} holds out {count} of the {len(data)} samples of {data.source}; none would be left to train on")
        judges = data.limit(count, seed)
        return data.take(~np.isin(data.ids, judges.ids)), judges

    def _begin(self, module: nn.Module) -> Training:
        learning = [p for p in module.parameters() if p.requires_grad]
        if self.optimizer == "adamw":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                learning, lr=self.lr, betas=(self.momentum, 0.999), weight_decay=self.weight_decay
            )
        else:
            nesterov = self.nesterov and self.momentum > 0
            optimizer = torch.optim.SGD(learning, lr=self.lr, momentum=self.momentum, nesterov=nesterov, weight_decay=self.weight_decay)
        return Training(module, optimizer, Average(module, self.ema) if self.ema else None)


def _copied(started: Network, title: str) -> tuple[nn.Module, torch.device]:
    """A copy of the module that can be trained, and the device it is on."""
    try:
        module = copy.deepcopy(started.module)
    except Exception as error:  # modules may hold anything: locks, generators, graphs
        raise NetworkError(f"{title}: {started.recipe} cannot be copied ({error}); pass a module that copy.deepcopy accepts") from error
    parameters = list(module.parameters())
    if not parameters:
        raise NetworkError(f"{title}: {started.recipe} has no parameters to train")
    if not any(p.requires_grad for p in parameters):
        module.requires_grad_(True)
    return module, parameters[0].device


def _check_pair(net: Network, data: Dataset, device: torch.device, title: str) -> None:
    """Refuse a network that cannot take the data's samples, or has another number of outputs than there are classes."""
    net.module.eval()
    try:
        with torch.no_grad():
            outputs = net(data.x([0]).to(device)).shape[1]
    except NetworkError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NetworkError(
            f"{title}: {net.recipe} cannot take samples of shape {data.shape} of {data.source} ({reason}); "
            f"build it for them, as in load_network(..., shape={data.shape}, classes={len(data.classes)})"
        ) from error
    if outputs != len(data.classes):
        raise NetworkError(
            f"{title}: {net.recipe} has {outputs} outputs, but {data.source} has {len(data.classes)} classes; "
            f"build it with classes={len(data.classes)}"
        )


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Gives a function that seeds the generators the network draws from; afterwards they stand where they stood before.

    On a GPU, convolutions are also told to give the same bits every time.
    """
    generators, repeatable = [torch.default_generator], nullcontext()
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
        repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    states = [generator.get_state() for generator in generators]

    def reseed(seed: int) -> None:
        for generator in generators:
            generator.manual_seed(seed)

    try:
        with repeatable:
            yield reseed
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
