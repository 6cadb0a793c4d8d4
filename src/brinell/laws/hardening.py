"""Laws of hardenings."""

from __future__ import annotations

import torch
from torch import nn

from brinell.core.dataset import Dataset
from brinell.core.hardening import Hardening
from brinell.core.network import Network
from brinell.laws.law import no_global_randomness, require
from brinell.laws.specimen import images


def hardening_keeps_its_argument(hardening: Hardening) -> None:
    """The network given is unchanged, the same seed gives the same network, and its state fits the wrapped structure."""
    x, y, _ = images(32, (1, 8, 8))
    data = Dataset.from_arrays(x, y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    short = hardening.replace(epochs=2) if "epochs" in type(hardening).model_fields else hardening
    net = Network(module)
    before = net.digest
    with no_global_randomness():
        first, second = short(net, data, seed=0), short(net, data, seed=0)
    require(net.digest == before, "the network that was passed in has changed")
    require(first.digest == second.digest, "the same seed gives two networks")
    short.wrap(net.frozen_copy().module).load_state_dict(first.module.state_dict())
