"""Probes: what reads numbers off a network at perturbed inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from brinell.core.component import Component
from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Reading
from brinell.core.tally import Tally
from brinell.core.threat import Threat

RECTIFIERS = ("relu", "relu6")


@dataclass(frozen=True)
class Needs:
    """What a probe wants to see; the needs of all probes are merged and met by one recorded forward pass.

    Arguments:
        layers: names of recorded tensors; () for every post-ReLU tensor, None for none at all.
        pooled: activations averaged over positions, (n, u), instead of whole, (n, u, *positions).
        kinds: the non-linearities whose outputs are recorded; by default those that are never negative and 0 where they are off.
        graph: activations keep their graph, so that gradients with respect to z can be taken.
        clean: the same fields of the unperturbed twin. net: the network itself, for passes of the probe's own.
    """

    layers: tuple[str, ...] | None = None
    pooled: bool = True
    kinds: tuple[str, ...] = RECTIFIERS
    graph: bool = False
    clean: bool = False
    net: bool = False


@dataclass(frozen=True)
class View:
    """One shard as a probe sees it; fields that were not asked for are empty.

    Arguments:
        x, z: (n, *d) clean and perturbed inputs. y: (n,) labels. ids: (n,). logits: (n, K) at z.
        activations: by layer name, (n, u) if pooled. clean: the same at x. net: counts its passes.
        classes: class names. columns: per-sample columns of the data, `group` and `cluster` among them. threat: what z is claimed to
            lie in; None where nothing is claimed.
    """

    x: Tensor
    z: Tensor
    y: Tensor
    ids: Tensor
    logits: Tensor
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    clean: View | None = None
    net: Callable[[Tensor], Tensor] | None = None
    classes: tuple[str, ...] = ()
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    threat: Threat | None = None


class Probe(Component):
    """Reads numbers off views: `observe` turns one shard into a tally, `read` turns the sum of all tallies into readings."""

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def cost(self) -> tuple[int, int]:
        """(forwards, backwards) of its own that one sample of the clean cell costs; what a plan expects."""
        return 0, 0

    def observe(self, view: View, *, draws: Draws) -> Tally:
        raise TypeError(f"{type(self).__name__} does not say what it observes")

    def read(self, tally: Tally) -> list[Reading]:
        raise TypeError(f"{type(self).__name__} does not say how its tally is read")


SAFE, UNSAFE, UNKNOWN = 1, -1, 0
"""What a certifier says of one sample: correct on the whole threat; a counterexample exists; no answer."""


class Certifier(Probe):
    """A probe whose readings are lower bounds: the share of samples proved correct everywhere in `threat`."""

    threat: Threat

    def bounds(self, net: Any, x: Tensor, threat: Threat, C: Tensor) -> tuple[Tensor, Tensor]:
        """(n, r) lower and upper bounds of the linear functions C, (r, K) or (n, r, K), of the logits, at every point of another threat."""
        raise UndefinedReading(f"{self.spec()} does not bound the logits; use a certifier that does, such as ibp or crown")
