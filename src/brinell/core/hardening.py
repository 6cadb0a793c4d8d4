"""Hardenings: ways to return another, more robust network."""

from __future__ import annotations

from typing import Any

from torch import nn

from brinell.core.component import Component
from brinell.core.dataset import Dataset
from brinell.core.network import Network


class Hardening(Component):
    """Trains or edits a network. The argument is never changed; the same seed gives the same network.

    The lab calls it with the options `valid` (samples to judge on, or None), `checkpoint` (a file that holds the state of the work
    after every epoch, from which an interrupted one goes on), `progress` and `device`; those that have no use for one take it and
    leave it.
    """

    def wrap(self, net: nn.Module) -> nn.Module:
        """The structure this hardening needs around the network, without any training; the network itself by default."""
        return net

    def __call__(self, net: Network | nn.Module, data: Dataset, *, seed: int, **options: Any) -> Network:
        raise TypeError(f"{type(self).__name__} does not say how it hardens")
