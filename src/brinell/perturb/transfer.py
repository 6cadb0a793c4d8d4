"""Transfer attacks: points made on one network, tried on another."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.network import Architecture, NetReference, Network
from brinell.core.perturbation import Around, Attack, Attempt
from brinell.models.loading import load_network
from brinell.perturb.pgd import PGD


class Transfer(Around, name="transfer"):
    """The points that another attack finds on a source network: do two networks fall to the same changes?

        z = attack(source, x, y)

    The network under test is never asked while z is made. Where such points break more than attacks on the network itself, those were
    misled by its gradients (the finding `black_box`).

    Arguments:
        source: `net(NAME)`, a network measured in the same run, or an architecture, which is built with fresh weights (seed 0).
        attack: what runs on the source; threat and goal are its.

    Raises:
        NetworkError: `net(NAME)` outside a lab, or no network of that name in the run.

    References: Papernot, McDaniel & Goodfellow (2016), "Transferability in Machine Learning", arXiv 1605.07277; as a check of
        evaluations: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705.

    Example:
        >>> import brinell as br
        >>> br.parse("transfer(source=net(standard), attack=fgsm)").spec()
        'transfer(attack=fgsm(threat=ball(eps=8/255, norm=inf)), source=net(standard))'
    """

    attack: Attack = Field(default_factory=PGD)
    source: NetReference | Architecture

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor | Attempt:
        if isinstance(self.source, NetReference):
            source = self.source.network
        else:
            source = _built(self.source.spec(), tuple(x.shape[1:]), int(net(x[:1]).shape[1]), x.dtype, x.device)
        return self.attack(source, x, y, draws=draws)


@lru_cache(maxsize=4)
def _built(architecture: str, shape: tuple[int, ...], classes: int, dtype: torch.dtype, device: torch.device) -> Network:
    net = load_network(architecture, shape=shape, classes=classes).frozen_copy(device)
    net.module.to(dtype)
    return net
