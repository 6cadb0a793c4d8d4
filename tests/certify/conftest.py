"""Networks of every supported part with random weights and statistics, and points of a ball."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import brinell as br
from brinell.core.threat import Ball

BALLS = [Ball(eps=0.02), Ball(norm=2, eps=0.2), Ball(norm=1, eps=0.5)]


class Parts(nn.Module):
    """Residual sums, concatenation, slices, padding and every pool, with ReLUs called in all ways."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.act = nn.ReLU(inplace=True)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.norm = nn.BatchNorm1d(26)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(26, 3, bias=False)

    def forward(self, x):
        a = self.act(self.one(x))
        b = torch.relu(self.two(a) * 0.5 + a - 0.1)
        c = F.pad(F.max_pool2d(b, 3, 2, 1, ceil_mode=True)[:, ::2], (0, 1, 0, 0), value=0.25)
        d = F.adaptive_avg_pool2d(self.act(self.up(b)), (2, 1))
        e = F.adaptive_max_pool2d(-b / 2, 2).permute(0, 2, 3, 1)
        f = F.avg_pool2d(b, 2, padding=1).mean((2, 3), keepdim=True)
        flat = [part.reshape(len(x), -1) for part in (c, d, e, f)]
        width = 26 - sum(part.shape[1] for part in flat)
        ones = torch.ones(len(x), width) if width > 0 else torch.ones(len(x), 0)
        return self.out(self.drop(self.norm(torch.cat([*flat, ones], 1)[:, :26]).clamp(min=0)))


NETS = {
    "mlp": ("mlp(widths=(12, 9))", (1, 4, 4)),
    "two classes": ("mlp(widths=(8,))", (7,)),
    "small_cnn": ("small_cnn(widths=(4, 5), pool=(1,))", (1, 8, 8)),
    "strides": ("small_cnn(widths=(3, 4), pool=(), strides=(1, 2), hidden=(6,))", (1, 9, 7)),
    "normalised": ("normalized(small_cnn(widths=(4,), pool=()), mean=(0.4, 0.6), std=(0.25, 0.5))", (2, 5, 5)),
    "option A": ("resnet20(width=2)", (3, 8, 8)),
    "option B": ("resnet20(width=2, shortcut=B)", (1, 9, 7)),
    "parts": (None, (2, 8, 8)),
}


@pytest.fixture
def make_net():
    """A network of `NETS` by its name, with random batch statistics, in evaluation mode."""

    def made(name: str, dtype=torch.float32) -> tuple[nn.Module, tuple[int, ...]]:
        spec, shape = NETS[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            net = Parts() if spec is None else br.load_network(spec, shape=shape, classes=2 if name == "two classes" else 4).module
            for part in net.modules():
                if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                    for value in (part.running_mean, part.bias.data):
                        value.normal_(0, 0.3)
                    for value in (part.running_var, part.weight.data):
                        value.uniform_(0.5, 1.5)
        return net.to(dtype).eval().requires_grad_(False), shape

    return made


@pytest.fixture
def samples():
    """n points of [0, 1], some entries on its walls."""

    def made(n: int, shape: tuple[int, ...], dtype=torch.float32) -> torch.Tensor:
        x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return (1.4 * x - 0.2).clamp(0, 1).to(dtype)

    return made


@pytest.fixture
def inside():
    """Random points of a ball: its inside, its corners and its edges, one per sample."""

    def made(ball: Ball, x: torch.Tensor, seed: int) -> torch.Tensor:
        lot = torch.Generator().manual_seed(seed)
        v = torch.randn(x.shape, generator=lot, dtype=torch.float64).to(x.dtype)
        if seed % 3 == 0:
            v = v.sign()
        if seed % 3 == 1 and ball.norm == 1:
            v = v * (v.abs() == v.abs().flatten(1).amax(1).reshape(-1, *(1,) * (v.ndim - 1)))
        return ball.project(x, x + v * (10.0 if seed % 3 < 2 else ball.eps / math.sqrt(v[0].numel())))

    return made
