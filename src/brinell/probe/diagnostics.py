"""Diagnostics: is the network in a state in which its robustness can be measured at all?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from brinell.core.component import State
from brinell.core.confidence import bonferroni, mcnemar, mean_interval, proportion
from brinell.core.draws import Draws
from brinell.core.goal import dlr, margin
from brinell.core.measurement import Bound, Reading
from brinell.core.network import module_of
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.probe.interference import gradient_calls, instability, state_version

Net = Callable[[Tensor], Tensor]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Channel means and standard deviations that most published ImageNet weights were trained with."""

_SCALES = ("standardised", "imagenet", "minus_one_to_one", "grey_levels")
_LOSSES = ("cross_entropy", "margin", "dlr")
_FITTED_ON = 1024  # samples that the channel statistics are taken from
_ALONE = 4  # samples of a shard that are passed in a batch of one
_OTHER_SEED = 20_240_229  # any number that is not the lab's


def are_probabilities(logits: Tensor, tolerance: float = 1e-5) -> Tensor:
    """(n,) bool: does the row lie in [0, 1] and sum to 1? Then a softmax was applied where logits are expected.

    References: Croce & Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML, arXiv 2003.01690; its code warns of such rows, with this tolerance.

    Example:
        >>> are_probabilities(torch.tensor([[0.25, 0.75], [0.25, 0.25], [2.0, -1.0]]))
        tensor([ True, False, False])
    """
    inside = ((logits >= 0) & (logits <= 1)).all(1)
    return inside & ((logits.double().sum(1) - 1).abs() <= tolerance)


def logit_distance(a: Tensor, b: Tensor) -> Tensor:
    """(n,) float64 in [0, 2]: |a - b|_2 / max(|a|_2, |b|_2), per row; 0 for 0/0.

    A row that is not finite in exactly one of them has distance 1, one that is not finite in both has 0.

    Example:
        >>> logit_distance(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 3.0], [0.0, 0.0]]))
        tensor([0.2000, 0.0000], dtype=torch.float64)
    """
    a, b = a.double(), b.double()
    there = torch.isfinite(a).all(1), torch.isfinite(b).all(1)
    size = torch.maximum(a.norm(dim=1), b.norm(dim=1))
    distance = torch.where(size > 0, (a - b).norm(dim=1) / size.clamp(min=1e-300), 0.0)
    return torch.where(there[0] & there[1], distance, (there[0] != there[1]).double())


def plain_gradient(losses: Tensor, x: Tensor) -> Tensor | None:
    """The gradient of the summed losses in the input as any attack without our precautions takes it; None where there is none."""
    if not losses.requires_grad:
        return None
    return torch.autograd.grad(losses.sum(), x, retain_graph=True, allow_unused=True)[0]


def rescaled(x: Tensor, state: State) -> dict[str, Tensor]:
    """The inputs in other units that networks are often trained in, by name; those that change nothing are left out.

        standardised: (x - mean) / std per channel of the data        imagenet: the same with ImageNet's numbers, 3 channels
        minus_one_to_one: (x - low) / (high - low) * 2 - 1            grey_levels: (x - low) / (high - low) * 255

    Arguments:
        x: (n, c, *positions). state: `mean` and `std`, (c,); `domain`, (2,), the last two scales need it to be finite.
    """
    shape = (1, -1, *(1,) * (x.ndim - 2))
    found = {"standardised": (x - state["mean"].to(x).view(shape)) / state["std"].to(x).view(shape)}
    low, high = state["domain"].tolist()
    if math.isfinite(low) and math.isfinite(high):
        unit = (x - low) / (high - low)
        if x.ndim == 4 and x.shape[1] == 3:
            mean, std = (torch.tensor(values).to(x).view(shape) for values in IMAGENET)
            found["imagenet"] = (unit - mean) / std
        if (low, high) != (-1.0, 1.0):
            found["minus_one_to_one"] = unit * 2 - 1
        if (low, high) != (0.0, 255.0):
            found["grey_levels"] = unit * 255
    return found


class Diagnostics(Probe, name="diagnostics", version=3):
    """Extra passes over clean samples that show whether other numbers can be trusted: are there gradients, is the net deterministic?

    Readings of the clean cell; other cells have none. From the logits that are there anyway, over all samples:

    - `probability_share`: rows that are probabilities (`are_probabilities`);
    - `nonfinite_share`: rows with NaN or inf.

    From passes of its own, over a share of the samples chosen by the hash of their ids:

    - `repeat_difference`, `repeat_changes`: largest `logit_distance` and share of changed predictions between a pass and a repetition
      of the same batch under another torch random state; above 0 for a random (or stateful) network;
    - `mode_difference`, `mode_changes`: the same between a pass that records a graph for gradients, one that does not, and one in
      inference mode; above 0 for a network that notices whether it is attacked, or deployed;
    - `gradient_calls`, `state_changes`: 1 where a plain forward pass takes gradients, or writes to parameters or buffers; else 0;
    - `batch_difference`, `batch_changes`: the same between the lab's batch, the chosen samples alone, halves of these, and a few
      samples in batches of one (a network that refuses one counts as distance 1). What is passed together depends on the lab's
      batch size, so for a network that mixes its batch these two do;
    - `no_gradient`: share whose logits carry no gradient to the input (detached, quantised by hand, `no_grad` inside);
    - `instability`: mean of `interference.instability` over `points` points in a box of side 8/255 of the domain's width: the relative
      change of the margin under tiny noise, in [0, 1];
    - `zero_gradient_share`, `nonfinite_gradient_share`, of layers `cross_entropy`, `margin` and `dlr`: share whose input gradient is
      exactly 0 (of DLR: though the answer is right), or not finite. The losses are computed plainly in the network's precision: this
      is what an attack without precautions sees. UNDEFINED where there is no gradient;
    - `normalisation_gain`: accuracy on rescaled inputs (`rescaled`) minus accuracy on the inputs as they are, in [-1, 1]; the
      layer names the best scale. Large where a network expects normalised inputs and gets raw ones. Its interval is Bonett &
      Price's of paired shares, at a level that holds for all scales at once (Bonferroni).

    Values are exact for the samples tried (the two differences are LOWER bounds of the largest one); intervals of shares are
    Clopper-Pearson's.

    Arguments:
        share: of the samples that extra passes are spent on, in (0, 1]. points: of `instability`. confidence: of the intervals.

    References: Croce & Hein (2020), arXiv 2003.01690 (flags for randomness, probabilities and zero gradients, here per sample);
        Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705. Share, scales and batchings are ours.

    Example:
        >>> Diagnostics(share=0.5).spec()
        'diagnostics(share=0.5)'
    """

    share: float = Field(default=0.25, gt=0, le=1)
    points: int = Field(default=4, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    @property
    def cost(self) -> tuple[int, int]:
        # one pass with gradients, three without, the halves, at most a batch of one, the box, and the scales
        return math.ceil(self.share * (6 + self.points + len(_SCALES))), math.ceil(self.share * len(_LOSSES))

    def prepare(self, net: Any, data: Any, *, draws: Draws) -> State:
        """Channel means and standard deviations of (some of) the data, and its domain."""
        chosen = draws.words(1).squeeze(1).argsort(stable=True)[:_FITTED_ON].sort().values
        x = data.x(chosen.numpy()).double().transpose(0, 1).flatten(1)
        std = x.std(1, correction=0)
        domain = torch.tensor(data.domain, dtype=torch.float64)
        return {"mean": x.mean(1), "std": torch.where(std > 0, std, 1.0), "domain": domain}

    def observe(self, view: View, *, draws: Draws) -> Tally:
        if view.z is not view.x or view.net is None:  # the lab passes the clean samples themselves where nothing is perturbed
            return Tallies({"place": Max.of(perturbed=torch.tensor(1))})
        finite = torch.isfinite(view.logits).all(1)
        parts: dict[str, Tally] = {
            "place": Max.of(perturbed=torch.tensor(0)),
            "seen": Rows.of(id=view.ids, probability=are_probabilities(view.logits), nonfinite=~finite),
        }
        chosen = draws.fork().uniform(1, dtype=torch.float64).squeeze(1) < self.share
        if bool(chosen.any()):
            columns = self._try(view.net, view.x[chosen], view.y[chosen], view.logits.detach()[chosen], draws[chosen])
            parts["tried"] = Rows.of(id=view.ids[chosen.to(view.ids.device)], **columns)
        return Tallies(parts)

    def _try(self, net: Net, x: Tensor, y: Tensor, known: Tensor, draws: Draws) -> dict[str, Tensor]:
        """One column per question; x: (m, *d) with m >= 1, known: (m, K) the logits of these samples in the lab's batch."""
        recorded, columns = _gradients(net, x, y)
        with torch.no_grad():
            devices, before = [x.device] if x.device.type == "cuda" else [], state_version(module_of(net))
            with gradient_calls() as calls:
                logits = net(x)
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(_OTHER_SEED)
                columns |= _compared("repeat", logits, [net(x)])
            columns |= _compared("mode", logits, [recorded, _inferred(net, x, logits)])
            columns["gradient_calls"] = torch.full_like(y, bool(calls)).bool()
            columns["state_changes"] = torch.full_like(y, state_version(module_of(net)) != before).bool()
            low, high = (0.0, 1.0) if self.state is None else self.state["domain"].tolist()
            side = 8 / 255 * (high - low if math.isfinite(high - low) else 1.0)
            columns["instability"] = instability(net, x, y, logits, side=side, count=self.points, low=low, high=high, draws=draws.at("box"))
            halves = torch.cat([net(half) for half in x.chunk(2)])
            alone = torch.cat([_alone(net, x[i : i + 1], logits) for i in range(min(_ALONE, len(x)))])
            columns |= _compared("batch", logits, [known, halves, torch.cat((alone, logits[len(alone) :]))])
            columns["right/as they are"] = _right(logits, y)
            if self.state is not None:
                columns |= {f"right/{name}": _right(net(z), y) for name, z in rescaled(x, self.state).items()}
        return columns

    def read(self, tally: Tally) -> list[Reading]:
        if not tally.parts or int(tally.parts["place"]["perturbed"]):
            return []
        seen = {name: value.numpy() for name, value in Rows(tally.parts["seen"].values).sorted().values.items()}
        readings = [self._share("probability_share", seen["probability"]), self._share("nonfinite_share", seen["nonfinite"])]
        tried = tally.parts.get("tried", Rows())
        rows = {name: value.numpy() for name, value in Rows(tried.values).sorted().values.items()}
        for name in ("repeat", "batch", "mode"):
            readings += self._compared(name, rows)
        readings += [self._share(name, rows.get(name)) for name in ("gradient_calls", "state_changes")]
        readings.append(self._instability(rows))
        readings.append(self._share("no_gradient", rows.get("no_gradient")))
        for loss in _LOSSES:
            for name in ("zero_gradient_share", "nonfinite_gradient_share"):
                readings.append(self._gradient(name, loss, rows))
        return [*readings, self._gain(rows)]

    def _share(self, name: str, flags: np.ndarray | None, layer: str = "") -> Reading:
        if flags is None or not len(flags):
            return Reading.undefined(name, self._nobody(), layer=layer)
        low, high = proportion(flags, self.confidence)
        return Reading(name, float(flags.mean()), layer, low=low, high=high, confidence=self.confidence, n=len(flags))

    def _nobody(self) -> str:
        return f"no sample fell into the share of {self.share:g}; raise it, or take more samples"

    def _compared(self, name: str, rows: dict[str, np.ndarray]) -> list[Reading]:
        if not rows:
            return [Reading.undefined(f"{name}_{what}", self._nobody()) for what in ("difference", "changes")]
        distance = rows[f"{name}_distance"]
        largest = Reading(f"{name}_difference", float(distance.max()), bound=Bound.LOWER, n=len(distance))
        return [largest, self._share(f"{name}_changes", rows[f"{name}_changed"])]

    def _instability(self, rows: dict[str, np.ndarray]) -> Reading:
        if not rows:
            return Reading.undefined("instability", self._nobody())
        values = rows["instability"]
        low, high = mean_interval(values, self.confidence, within=(0.0, 1.0)) if len(values) > 1 else (None, None)
        return Reading("instability", float(values.mean()), "", Bound.ESTIMATE, low, high, self.confidence, len(values))

    def _gradient(self, name: str, loss: str, rows: dict[str, np.ndarray]) -> Reading:
        if not rows:
            return Reading.undefined(name, self._nobody(), layer=loss)
        there = ~rows["no_gradient"]
        if not there.any():
            return Reading.undefined(name, "no gradient reaches the input (reading no_gradient)", layer=loss, n=len(there))
        return self._share(name, rows[f"{name}/{loss}"][there], loss)

    def _gain(self, rows: dict[str, np.ndarray]) -> Reading:
        name, plain = "normalisation_gain", rows.get("right/as they are")
        scales = [scale for scale in _SCALES if f"right/{scale}" in rows]
        if plain is None:
            return Reading.undefined(name, self._nobody())
        if not scales:
            return Reading.undefined(name, "the scale of the data was not fitted; let a lab run this probe", n=len(plain))
        level = bonferroni(self.confidence, len(scales))
        tests = {scale: mcnemar(rows[f"right/{scale}"], plain, level) for scale in scales}
        best = max(scales, key=lambda scale: tests[scale].difference)
        test = tests[best]
        return Reading(name, test.difference, best, low=test.low, high=test.high, confidence=self.confidence, n=test.n)


def _gradients(net: Net, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and per sample: does a gradient reach the input, is it exactly zero, is it finite?"""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        logits = net(z)
        gradients = {
            "cross_entropy": plain_gradient(F.cross_entropy(logits, y, reduction="none"), z),
            "margin": plain_gradient(margin(logits, y), z),
            "dlr": plain_gradient(dlr(logits, y), z),
        }
    columns = {"no_gradient": torch.full_like(y, int(gradients["margin"] is None)).bool()}
    for loss, gradient in gradients.items():
        flat = (torch.zeros_like(x) if gradient is None else gradient).flatten(1)
        idle = (flat == 0).all(1)
        columns[f"zero_gradient_share/{loss}"] = idle & _right(logits, y) if loss == "dlr" else idle  # at the third place DLR is 1, flat
        columns[f"nonfinite_gradient_share/{loss}"] = ~torch.isfinite(flat).all(1)
    return logits.detach(), columns


def _compared(name: str, logits: Tensor, others: list[Tensor]) -> dict[str, Tensor]:
    distance = torch.stack([logit_distance(other, logits) for other in others]).amax(0)
    changed = torch.stack([_answer(other) != _answer(logits) for other in others]).any(0)
    return {f"{name}_distance": distance, f"{name}_changed": changed}


def _answer(logits: Tensor) -> Tensor:
    return torch.where(torch.isfinite(logits).all(1), logits.argmax(1), -1)


def _right(logits: Tensor, y: Tensor) -> Tensor:
    return _answer(logits) == y


def _inferred(net: Net, x: Tensor, logits: Tensor) -> Tensor:
    """The logits in inference mode; the known ones where the network does not run in it (as one that takes gradients itself)."""
    try:
        with torch.inference_mode():
            found = net(x)
    except RuntimeError:
        return logits
    return found.clone()


def _alone(net: Net, x: Tensor, like: Tensor) -> Tensor:
    """The logits of a batch of one; NaN where the network refuses it (batch normalisation in training mode does)."""
    try:
        return net(x)
    except (RuntimeError, ValueError):
        return torch.full_like(like[:1], math.nan)
