"""Regularised class selectivity: training that makes units more, or less, selective for single classes."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from brinell.core.dataset import Dataset
from brinell.core.errors import NetworkError
from brinell.core.hardening import Hardening
from brinell.core.network import Network
from brinell.harden.fit import Fit
from brinell.harden.loop import Step
from brinell.probe.selectivity import selectivity_index

_FEW = 8


class Selectivity(Hardening, name="selectivity", version=2):
    """Trains with the network's mean class selectivity as a second term of the loss.

        minimise  CE - alpha * mean over layers of (mean over units of SI_u)

    SI_u is the class selectivity index of unit u over the classes of the batch (`class_selectivity`), from responses averaged over
    positions. alpha < 0 lowers selectivity, alpha > 0 raises it, alpha = 0 is plain training to the last bit. Gradients flow through both
    class means of every regularised layer into all earlier weights; which class is preferred is held constant. Where fewer than two
    classes are present the term is left out of the step. Large positive alpha can kill units, and dead units count as SI 0: judge by
    measured selectivity, not by alpha.

    Arguments:
        alpha: strength and sign. layers: names or patterns of the layers counted; () for every ReLU output. first, last: only so many of
            them, from the front or the back (not both). start, stop: epochs in which the term acts, from 0, stop excluded.
        mode: batch compares the classes present in the batch; ema adds the moving class means of absent ones, as constants. decay: of
            these. eps: of the index. fit: the training.

    Raises: as `fit`; NetworkError: nothing is recorded, or fewer layers than `first` or `last`.

    Warns:
        UserWarning: a batch has fewer than 8 samples per class, so that its index is mostly noise: with n samples per class and
            responses of coefficient of variation cv, units without any selectivity read about 0.86 cv / sqrt(n) for 10 classes.

    References: Leavitt & Morcos (2021), "Selectivity considered harmful", ICLR, arXiv 2003.01262 (the loss); Ranadive, Thakurdesai,
        Morcos, Leavitt & Deny (2023), on its early epochs (start and stop). Which layers count there was not confirmed;
        configurable. Departure: mode=ema is ours.

    Example:
        >>> import brinell as br
        >>> br.parse("selectivity(alpha=-1, last=3, fit=fit(epochs=40))").last
        3
    """

    telling = ("alpha", "fit")
    alpha: float = Field(default=-1.0, allow_inf_nan=False)
    layers: tuple[str, ...] = ()
    first: int = Field(default=0, ge=0)
    last: int = Field(default=0, ge=0)
    start: int = Field(default=0, ge=0)
    stop: int | None = Field(default=None, ge=0)
    mode: Literal["batch", "ema"] = "batch"
    decay: float = Field(default=0.9, ge=0, lt=1)
    eps: float = Field(default=1e-6, gt=0)
    fit: Fit = Fit()

    @model_validator(mode="after")
    def _check(self) -> Selectivity:
        if self.first and self.last:
            raise ValueError(f"first={self.first} and last={self.last} exclude each other; give one, or name the layers")
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop={self.stop} must come after start={self.start}")
        return self

    def __call__(self, net: Network | nn.Module, data: Dataset, *, seed: int, **options: Any) -> Network:
        per_class = min(self.fit.batch_size, len(data)) / len(data.classes)
        if self.alpha and self.mode == "batch" and per_class < _FEW:
            warnings.warn(
                f"{self.spec()}: batches hold {per_class:.3g} samples per class, too few to tell selectivity from chance; "
                f"raise batch_size to {_FEW * len(data.classes)}, or use mode=ema",
                stacklevel=2,
            )
        term = Term(self, len(data.classes)) if self.alpha else None
        return self.fit(net, data, seed=seed, title=self.spec(), regularizer=term, layers=self.layers, **options)


class Term:
    """-alpha times the selectivity of a step; `tensors` holds the moving class means."""

    def __init__(self, recipe: Selectivity, classes: int) -> None:
        self.recipe, self.classes = recipe, classes
        self.tensors: dict[str, Tensor] = {}

    def __call__(self, step: Step) -> Tensor:
        recipe = self.recipe
        chosen = self._chosen(list(step.activations))
        if step.epoch < recipe.start or (recipe.stop is not None and step.epoch >= recipe.stop):
            return step.logits.new_zeros(())
        with torch.autocast(step.logits.device.type, enabled=False):  # class means in bfloat16 would differ by rounding alone
            return self._penalty([step.activations[name].float() for name in chosen], step.y)

    def _penalty(self, layers: list[Tensor], y: Tensor) -> Tensor:
        """layers: (n, u) each. All of them are treated at once: few, large operations."""
        counts = torch.bincount(y, minlength=self.classes)
        known = counts > 0
        means = (torch.nn.functional.one_hot(y, self.classes).T / counts.clamp(min=1)[:, None]) @ torch.cat(layers, 1)
        if self.recipe.mode == "ema":
            means, known = self._with_absent(means, known)
        if int(known.sum()) < 2:
            return means.new_zeros(())
        index = selectivity_index(means, known, self.recipe.eps)
        widths = torch.tensor([layer.shape[1] for layer in layers], device=index.device)
        return -self.recipe.alpha * (index @ (1 / (len(layers) * widths)).repeat_interleave(widths))

    def _with_absent(self, means: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The class means with the moving ones of absent classes, which are then moved on."""
        kept = self.tensors.get("means", torch.zeros_like(means))
        seen = self.tensors.get("seen", torch.zeros_like(present))
        fresh, decay = means.detach(), self.recipe.decay
        moved = torch.where(seen[:, None], decay * kept + (1 - decay) * fresh, fresh)
        self.tensors["means"] = torch.where(present[:, None], moved, kept)
        self.tensors["seen"] = seen | present
        return torch.where(present[:, None], means, kept), seen | present

    def _chosen(self, names: list[str]) -> list[str]:
        wanted = self.recipe.first or self.recipe.last
        if not names or len(names) < wanted:
            raise NetworkError(
                f"{self.recipe.spec()} needs {wanted or 'at least 1'} recorded ReLU layers, but this network has {len(names)}"
                f"{': ' + ', '.join(names) if names else ''}"
            )
        return names[: self.recipe.first] if self.recipe.first else names[-self.recipe.last :]
