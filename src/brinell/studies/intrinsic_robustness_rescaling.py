"""Changes of a network that a measure of robustness should not, or should, notice: rescaled layers, and logits times a factor."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brinell.core.draws import derive
from brinell.core.errors import NetworkError
from brinell.core.network import Network
from brinell.core.threat import Ball
from brinell.probe.logit_scale import NORMALISED, RAW, logit_scale
from brinell.probe.psi import LEAST
from brinell.probe.worst_divergence import Search, most

_AFFINE = (nn.Linear, nn.Conv2d)


def rescaled(net: Network, factor: float) -> Network:
    """The same function by other weights: the first ReLU layer's input times a factor, the next layer's weights over it.

    Arguments:
        net: a sequence of layers. factor: positive.

    Raises:
        NetworkError: it has no ReLU behind a layer with weights, or nothing with weights behind that.

    References: Dinh, Pascanu, Bengio & Bengio (2017), "Sharp Minima Can Generalize For Deep Nets", ICML, arXiv 1703.04933.

    Example:
        >>> net = Network(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double())
        >>> x = torch.rand(4, 2, dtype=torch.float64)
        >>> bool(torch.allclose(net(x), rescaled(net, 10.0)(x))), bool(net.module[0].weight.equal(rescaled(net, 10.0).module[0].weight))
        (True, False)
    """
    module = copy.deepcopy(net.module)
    layers = list(module.children())
    first = next((at for at, layer in enumerate(layers) if isinstance(layer, nn.ReLU)), 0) - 1
    after = [layer for layer in layers[first + 1 :] if isinstance(layer, _AFFINE)]
    if not isinstance(module, nn.Sequential) or first < 0 or not isinstance(layers[first], (*_AFFINE, nn.BatchNorm2d)) or not after:
        raise NetworkError(f"{net.recipe} is no sequence of layers with a ReLU between two that have weights, so none can be rescaled")
    with torch.no_grad():
        for parameter in layers[first].parameters():
            parameter.mul_(factor)
        after[0].weight.div_(factor)
    return Network(
        module.eval(), net.recipe, (*net.notes, f"first layer times {factor:g}"), net.source, shape=net.shape, classes=net.classes
    )


def louder(net: Network, factor: float) -> Network:
    """The network with its logits times a factor: the last linear layer's weights and bias.

    Raises:
        NetworkError: its last part with weights is no linear layer.
    """
    module = copy.deepcopy(net.module)
    last = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None][-1]
    if not isinstance(last, nn.Linear):
        raise NetworkError(f"{net.recipe} ends in {type(last).__name__}, not in a linear layer; its logits cannot be rescaled")
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(factor)
    return Network(module.eval(), net.recipe, (*net.notes, f"logits times {factor:g}"), net.source, shape=net.shape, classes=net.classes)


def sharpness(net: Network, x: Tensor, y: Tensor, *, spread: float = 0.02, draws: int = 4) -> float:
    """How much the mean cross-entropy rises when Gaussian noise of one spread is added to all weights: a flatness of parameter space."""
    with torch.no_grad():
        rise = -F.cross_entropy(net(x), y)
        for number in range(draws):
            module = copy.deepcopy(net.module)
            for place, parameter in enumerate(module.parameters()):
                noise = derive(0, "sharpness", number, place, ids=[0]).normal(*parameter.shape, dtype=torch.float64)[0]
                parameter.add_(spread * noise.to(parameter))
            rise = rise + F.cross_entropy(module(x), y) / draws
    return float(rise)


def median_psi(net: Network, x: Tensor, ball: Ball, *, steps: int, restarts: int) -> dict[str, float | None]:
    """Median psi of a network in the type of x, raw and normalised by the scale of these samples' logits; None where it is capped, as that
    of a network that answers a constant is."""
    with torch.no_grad():
        clean = net(x)
    search = Search("kl", steps, 2.5, {RAW: 1.0, NORMALISED: logit_scale(clean)})
    draws = derive(0, "rescaling", ids=range(len(x)))
    climbs = search.climbs(net, x, clean, ball, search.starts(x, ball, draws, restarts))
    top = most(peaks for peaks, _ in climbs)
    found = {layer: float((1 / peak.value.clamp(min=LEAST)).median()) for layer, peak in top.items()}
    return {layer: value if value < 1 / LEAST else None for layer, value in found.items()}


def rescaling_numbers(asked: dict[str, Any]) -> dict[str, Any]:
    """What psi and sharpness of a network make of both changes, in float64.

    Arguments:
        asked: `net`, `x`, `y`, `eps`, `steps`, `restarts`.

    Returns:
        Relative changes `layer raw`, `layer normalised`, `logits raw`, `logits normalised`, `layer sharpness`; None without a psi.
    """
    made = asked["net"]
    net = Network(copy.deepcopy(made.module).double().eval(), made.recipe, shape=made.shape, classes=made.classes)
    x, y, ball = asked["x"].double(), asked["y"], Ball(eps=asked["eps"])
    options = {"steps": asked["steps"], "restarts": asked["restarts"]}
    for parameter in net.module.parameters():
        parameter.requires_grad_(False)
    before, found = median_psi(net, x, ball, **options), dict[str, Any]()
    for what, twin in (("layer", rescaled(net, 10.0)), ("logits", louder(net, 3.0))):
        after = median_psi(twin, x, ball, **options)
        found |= {f"{what} {layer}": _change(before[layer], after[layer]) for layer in (RAW, NORMALISED)}
    found["layer sharpness"] = abs(sharpness(rescaled(net, 10.0), x, y) / sharpness(net, x, y) - 1)
    return found


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else abs(after / before - 1)
