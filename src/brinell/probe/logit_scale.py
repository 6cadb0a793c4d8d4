"""The scale of a network's logits: one number per network, so that networks whose logits differ in size can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.component import State
from brinell.core.draws import Draws
from brinell.core.measurement import Reading
from brinell.core.network import frozen, module_of
from brinell.core.probe import Probe
from brinell.core.tally import Max, Tally

RAW, NORMALISED = "raw", "normalised"
_AT_ONCE = 256


def logit_scale(logits: Tensor) -> float:
    """s = sqrt(mean over samples and classes of (Z - mean_k Z)^2), for logits Z (n, K): softmax(Z / s) does not know their size.

    Example:
        >>> logit_scale(torch.tensor([[1.0, -1.0], [5.0, 3.0]]))
        1.0
    """
    z = logits.double()
    return float((z - z.mean(1, keepdim=True)).square().mean().sqrt())


class Normalised(Probe):
    """A probe that reads the output twice: as it is (layer `raw`), and from the logits divided by their scale (`normalised`).

    A lab fits the scale on the clean samples of the run, once for each network and before anything is measured; `scale` gives it by hand.
    Where logits do not differ between classes there is none, and the normalised readings are UNDEFINED.
    """

    scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    def prepare(self, net: Any, data: Any, *, draws: Draws) -> State | None:
        """Fit the scale, and whatever the parts of the probe need."""
        state: State = super().prepare(net, data, draws=draws) or {}
        if self.scale is not None:
            return state or None
        return {"scale": torch.tensor(logit_scale(_all_logits(net, data)), dtype=torch.float64), **state}

    @property
    def scales(self) -> dict[str, float]:
        """The scales that outputs are read at, by layer; `normalised` is missing where it is not known or 0."""
        fitted = self.scale if self.state is None or "scale" not in self.state else float(self.state["scale"])
        return {RAW: 1.0, **({NORMALISED: fitted} if fitted else {})}

    def noted(self) -> Tally:
        """What `unscaled` must know of the scale."""
        unknown = self.scale is None and (self.state is None or "scale" not in self.state)
        return Max.of(unknown=torch.tensor(int(unknown)), scale=torch.tensor(self.scales.get(NORMALISED, 0.0), dtype=torch.float64))


def unscaled(name: str, noted: Tally, n: int) -> Reading:
    """The reading that stands for a normalised one that does not exist, and why."""
    why = (
        "no lab has fitted the scale of the logits; give scale=..." if int(noted["unknown"]) else "the logits do not differ between classes"
    )
    return Reading.undefined(name, why, layer=NORMALISED, n=n)


def _all_logits(net: Callable[[Tensor], Tensor], data: Any) -> Tensor:
    module = module_of(net)
    weight = next(iter(module.parameters()), None) if module is not None else None
    device = torch.device("cpu") if weight is None else weight.device
    with torch.no_grad(), frozen(net):
        return torch.cat([net(data.x(rows).to(device)).double().cpu() for rows in data.shards(_AT_ONCE)])
