"""Expectation over transformation: attacks on the mean output of a random network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.network import module_of
from brinell.core.perturbation import Around, Attack, Attempt
from brinell.perturb.pgd import PGD


class EOT(Around, name="eot"):
    """Another attack on the mean output of a random network: is its robustness more than the luck of one draw?

        f'(x) = (1/m) sum_j f_j(x)                    mean = logits
        f'(x) = log((1/m) sum_j softmax(f_j(x)))      mean = probabilities

    with m = `samples` passes f_j, each with fresh randomness of the network's own; gradients are those of the mean. The result is
    judged by one plain pass, as any other. On a deterministic network this is `attack` at m times its cost.

    Arguments:
        attack: what climbs; threat and goal are its. samples: m. mean: of what; where members saturate differently the two give
            other gradients, and either may be the stronger.

    References: Athalye, Engstrom, Ilyas & Kwok (2018), "Synthesizing Robust Adversarial Examples", ICML, arXiv 1707.07397; Athalye,
        Carlini & Wagner (2018), "Obfuscated Gradients Give a False Sense of Security", ICML, arXiv 1802.00420, section 4.3;
        Croce & Hein (2020), arXiv 2003.01690 (m = 20 for random networks).

    Example:
        >>> import brinell as br
        >>> br.parse("eot(attack=fgsm, samples=5)").spec()
        'eot(attack=fgsm(threat=ball(eps=8/255, norm=inf)), samples=5)'
    """

    telling = ("samples",)
    attack: Attack = Field(default_factory=PGD)
    samples: int = Field(default=20, ge=1)
    mean: Literal["logits", "probabilities"] = "logits"

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = self.attack.cost
        return self.samples * forwards, self.samples * backwards

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor | Attempt:
        return self.attack(_Mean(net, self.samples, self.mean == "probabilities"), x, y, draws=draws)


class _Mean:
    """The mean output of several passes of a network."""

    def __init__(self, net: Callable[[Tensor], Tensor], samples: int, soft: bool) -> None:
        self.net, self.module, self.samples, self.soft = net, module_of(net), samples, soft

    def __call__(self, x: Tensor) -> Tensor:
        # passes one by one: a network may draw once per batch. A copy each, as logits of a known tensor are not computed again
        drawn = torch.stack([self.net(x.clone()) for _ in range(self.samples)])
        return drawn.log_softmax(2).logsumexp(0) if self.soft else drawn.mean(0)
