"""Laws of architectures."""

from __future__ import annotations

import torch

from brinell.core.network import Architecture
from brinell.laws.law import require
from brinell.laws.specimen import images


def builds(architecture: Architecture) -> None:
    """Builds for images of one and three channels, gives (n, K) logits, and in evaluation mode the same ones twice."""
    for shape, classes in (((1, 32, 32), 10), ((3, 32, 32), 4)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = architecture.build(shape, classes).eval()
        x, _, _ = images(2, shape)
        with torch.no_grad():
            out = net(x)
            require(out.shape == (2, classes) and torch.isfinite(out).all(), f"outputs of shape {tuple(out.shape)} for {classes} classes")
            require(torch.equal(net(x), out), "two passes in evaluation mode differ")
