"""Architectures: shapes, parameter counts, initialisation, and the option-A shortcut against numpy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from brinell.core.component import items, kind, parse
from brinell.core.errors import NetworkError, SpecError
from brinell.core.network import Architecture
from brinell.models.mlp import MLP
from brinell.models.resnet import ResNet18, ResNet20, ResNet32, ResNet44, ResNet56, subsample_and_pad
from brinell.models.small_cnn import SmallCNN

IMAGE_NETS = [
    ResNet20(width=4),
    ResNet20(width=4, shortcut="B"),
    ResNet32(width=2),
    ResNet18(width=4),
    ResNet18(width=4, shortcut="A"),
    SmallCNN(),
]


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def family_count(n: int, *, channels: int = 3, classes: int = 10, option_b: bool = False) -> int:
    """Parameters of the 6n+2 family, counted by hand: convolutions without bias, two per batch normalisation channel."""
    total = channels * 16 * 9 + 2 * 16
    inputs = 16
    for width in (16, 32, 64):
        total += inputs * width * 9 + (2 * n - 1) * width * width * 9 + 2 * n * 2 * width
        total += inputs * width + 2 * width if option_b and inputs != width else 0
        inputs = width
    return total + 64 * classes + classes


@pytest.mark.parametrize(
    ("net", "n", "published"), [(ResNet20(), 3, 269_722), (ResNet32(), 5, 464_154), (ResNet44(), 7, 658_586), (ResNet56(), 9, 853_018)]
)
def test_the_family_has_the_parameters_of_table_6(net, n, published):
    assert family_count(n) == published
    assert count(net.build((3, 32, 32), 10)) == published


def test_option_b_and_resnet18_parameters():
    assert count(ResNet20(shortcut="B").build((3, 32, 32), 10)) == family_count(3, option_b=True) == 272_474
    assert count(ResNet18().build((3, 32, 32), 10)) == 11_173_962
    assert count(ResNet20().build((1, 8, 8), 7)) == family_count(3, channels=1, classes=7)


def test_depth_counts_the_layers_of_the_name():
    for net, depth in ((ResNet20(), 20), (ResNet32(), 32), (ResNet44(), 44), (ResNet56(), 56), (ResNet18(shortcut="A"), 18)):
        layers = [part for part in net.build((3, 8, 8), 10).modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth


@pytest.mark.parametrize("net", IMAGE_NETS, ids=str)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 14), (5, 11, 8)])
def test_any_channels_and_sides(net, shape):
    module = net.build(shape, 7).eval()
    out = module(torch.rand(3, *shape))
    assert out.shape == (3, 7)
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("net", [*IMAGE_NETS, MLP(widths=(16, 8))], ids=str)
def test_gradients_reach_every_parameter_and_the_input(net):
    module = net.build((3, 8, 8), 5).train()
    x = torch.rand(8, 3, 8, 8, requires_grad=True)
    nn.functional.cross_entropy(module(x), torch.arange(8) % 5).backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    for name, p in module.named_parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all()) and float(p.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("net", IMAGE_NETS, ids=str)
def test_evaluation_is_deterministic_and_independent_of_batch_mates(net):
    module = net.build((3, 8, 8), 5).eval()
    x = torch.rand(6, 3, 8, 8)
    assert torch.equal(module(x), module(x))
    torch.testing.assert_close(module(x)[2:4], module(x[2:4]))


@pytest.mark.parametrize(("stride", "channels", "sides"), [(2, 8, (8, 8)), (2, 8, (7, 5)), (1, 7, (4, 6)), (2, 4, (5, 4))])
def test_option_a_is_subsampling_and_zero_channels(stride, channels, sides):
    x = np.random.default_rng(0).normal(size=(2, 4, *sides))
    expected = np.zeros((2, channels, math.ceil(sides[0] / stride), math.ceil(sides[1] / stride)))
    before = (channels - 4) // 2
    for c in range(4):
        for i in range(expected.shape[2]):
            for j in range(expected.shape[3]):
                expected[:, before + c, i, j] = x[:, c, stride * i, stride * j]
    assert np.array_equal(subsample_and_pad(torch.from_numpy(x), channels, stride).numpy(), expected)


def test_a_block_with_silent_convolutions_is_its_shortcut():
    net = ResNet20(width=4).build((3, 8, 8), 3).eval()
    block = net.stages[1][0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), subsample_and_pad(x, 8, 2).clamp(min=0))


def test_initialisation_has_he_variance():
    net = ResNet18().build((3, 32, 32), 10)
    for name, fan_out in (("stages.3.1.conv2", 512 * 9), ("stages.1.0.conv1", 128 * 9)):
        weight = net.get_submodule(name).weight.detach()
        assert float(weight.var()) == pytest.approx(2 / fan_out, rel=0.02)
        assert abs(float(weight.mean())) < 1e-3
    assert float(net.linear.bias.detach().abs().max()) == 0


def test_small_cnn_is_the_described_network():
    net = SmallCNN().build((1, 8, 8), 10)
    kinds = [type(part).__name__ for part in net]
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [*block, *block, "MaxPool2d", *block, "GlobalAverage", "Linear"]
    assert [p.shape[:2] for p in net.parameters() if p.ndim == 4] == [(16, 1), (32, 16), (32, 32)]


def test_small_cnn_strides_and_hidden_layers():
    net = parse("small_cnn(hidden=(64,), pool=(), strides=(1, 2), widths=(16, 32))").build((1, 8, 8), 10).eval()
    assert net[:-4](torch.rand(2, 1, 8, 8)).shape == (2, 32, 4, 4)
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert [p.shape for p in net.parameters()][-4:] == [(64, 32), (64,), (10, 64), (10,)]


def test_mlp_layers():
    assert [tuple(p.shape) for p in MLP(widths=(64, 32)).build((1, 8, 8), 10).parameters() if p.ndim == 2] == [(64, 64), (32, 64), (10, 32)]
    assert count(MLP(widths=()).build((5,), 3)) == 18
    x = torch.rand(4, 1, 8, 8)
    net = MLP().build((1, 8, 8), 10)
    w1, b1, w2, b2 = (p.detach().numpy() for p in net.parameters())
    expected = np.maximum(x.flatten(1).numpy() @ w1.T + b1, 0) @ w2.T + b2
    np.testing.assert_allclose(net(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["resnet20(width=0)", "resnet20(shortcut=C)", "mlp(widths=(0,))", "small_cnn(widths=())", "small_cnn(strides=(1, 2))",
             "small_cnn(pool=(4,))", "small_cnn(pool=(1, 1))", "rank_features(rank=5, width=4)", "resnet20(depth=3)"]
)  # fmt: skip
def test_wrong_fields_are_refused(text):
    with pytest.raises(SpecError):
        parse(text)


def test_architectures_that_do_not_go_with_the_data():
    with pytest.raises(NetworkError, match=r"resnet20 takes images .* Use mlp for vectors"):
        ResNet20().build((64,), 10)
    with pytest.raises(NetworkError, match="no pixel left of 2 x 8 after convolution 2"):
        SmallCNN(pool=(1, 2)).build((1, 2, 8), 10)


def test_every_architecture_is_listed_and_its_text_reads_back():
    found = items(Architecture)
    assert {"resnet18", "resnet20", "resnet32", "resnet44", "resnet56", "mlp", "small_cnn", "linear", "one_hot_units", "rank_features",
            "normalized"} <= set(found)  # fmt: skip
    for name, cls in found.items():
        assert kind(cls) == "architecture"
        if name != "normalized":
            assert parse(cls().spec(full=True)) == cls()
    net = parse("normalized(resnet20(shortcut=B), mean=(0.5,), std=(0.25,))")
    assert parse(net.spec()) == net
