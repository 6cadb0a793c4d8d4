"""Recording: every way of calling a non-linearity is seen, under one stable name."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import brinell as br
from brinell.core.errors import NetworkError
from brinell.core.record import KINDS, pooled, record, whole


class Calls(nn.Module):
    """One linear layer and whatever is done with its output."""

    def __init__(self, then, **parts: nn.Module) -> None:
        super().__init__()
        self.line, self.then = nn.Linear(4, 3), then
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.then(self, self.line(x))


X = torch.linspace(-2, 2, 20).reshape(5, 4)

RELUS = {
    "F.relu": (lambda m, h: F.relu(h), "root:0"),
    "F.relu inplace": (lambda m, h: F.relu(h, inplace=True), "root:0"),
    "F.relu_": (lambda m, h: F.relu_(h), "root:0"),
    "torch.relu": (lambda m, h: torch.relu(h), "root:0"),
    "torch.relu_": (lambda m, h: torch.relu_(h), "root:0"),
    "x.relu()": (lambda m, h: h.relu(), "root:0"),
    "x.relu_()": (lambda m, h: h.relu_(), "root:0"),
    "nn.ReLU": (lambda m, h: m.act(h), "act:0"),
    "nn.ReLU inplace": (lambda m, h: m.inplace(h), "inplace:0"),
    "functional": (lambda m, h: torch.nn.functional.relu(input=h), "root:0"),
    "made on the way": (lambda m, h: nn.ReLU()(h), "root:0"),
    "forward by hand": (lambda m, h: m.act.forward(h), "root:0"),
}


def calls(then) -> Calls:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Calls(then, act=nn.ReLU(), inplace=nn.ReLU(inplace=True))


@pytest.mark.parametrize("way", RELUS)
@pytest.mark.parametrize("grad", [True, False])
def test_every_way_of_calling_relu(way, grad):
    act, name = RELUS[way]
    net = calls(act)
    with torch.set_grad_enabled(grad), record(net) as seen:
        out = net(X)
    assert list(seen) == [name] and seen.kinds == {name: "relu"}
    assert torch.equal(seen[name], net.line(X).clamp(min=0)) and torch.equal(seen[name], out)
    assert seen[name].data_ptr() != out.data_ptr()


@pytest.mark.parametrize("way", RELUS)
def test_a_later_in_place_operation_does_not_change_the_record(way):
    act, name = RELUS[way]
    net = calls(lambda m, h: act(m, h).add_(100.0).mul_(2))
    with torch.no_grad(), record(net) as seen:
        net(X)
    assert torch.equal(seen[name], net.line(X).detach().clamp(min=0))


def test_gradients_pass_through_what_was_recorded():
    net = calls(RELUS["nn.ReLU"][0])
    x = X.clone().requires_grad_()
    with record(net) as seen:
        net(x)
    (g,) = torch.autograd.grad(seen["act:0"].sum(), x)
    want = (net.line(X) > 0).float() @ net.line.weight
    assert torch.allclose(g, want)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.line = nn.ReLU(inplace=True), nn.Linear(6, 6)

    def forward(self, x):
        h = self.relu(self.line(x))
        return self.relu(F.relu(h) + x)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Sequential(nn.Linear(6, 3), nn.ReLU())

    def forward(self, x):
        x = torch.relu(x)
        for block in self.blocks:
            x = block(x)
        x = self.blocks[0](x)
        return self.head(F.relu(x))


NAMES = [
    "root:0", "blocks.0.relu:0", "blocks.0:0", "blocks.0.relu:1", "blocks.1.relu:0", "blocks.1:0", "blocks.1.relu:1",
    "blocks.0.relu:2", "blocks.0:1", "blocks.0.relu:3", "root:1", "head.1:0",
]  # fmt: skip


def test_names_are_the_path_and_the_count_of_the_call():
    net = Nested()
    for n in (1, 3, 50):
        with record(net) as seen:
            net(torch.randn(n, 6))
            net(torch.randn(n, 6))  # a second pass replaces the first
        assert list(seen) == NAMES and all(len(value) == n for value in seen.values())


def test_two_passes_leave_the_last_one():
    net = calls(RELUS["nn.ReLU"][0])
    with record(net) as seen:
        net(X)
        net(X[:2] + 1)
    assert torch.equal(seen["act:0"], net.line(X[:2] + 1).clamp(min=0))


@pytest.mark.parametrize(
    ("layers", "want"),
    [
        (("root:1",), ["root:1"]),
        (("blocks.0*",), [name for name in NAMES if name.startswith("blocks.0")]),
        (("blocks.?.relu:0", "head*"), ["blocks.0.relu:0", "blocks.1.relu:0", "head.1:0"]),
        (("*",), NAMES),
        ((), NAMES),
    ],
)
def test_layers_are_names_or_patterns(layers, want):
    net = Nested()
    with record(net, layers) as seen:
        net(torch.randn(2, 6))
    assert list(seen) == want
    with record(net) as everything:
        net(torch.randn(2, 6))
    assert list(everything.pick(layers, ("relu",))) == want and everything.pick((), ("tanh",)) == {}


def test_layers_that_match_nothing_are_named():
    net = calls(RELUS["nn.ReLU"][0])
    with (
        pytest.raises(NetworkError, match=r"no recorded layer is called act:1, b\*; this network has act:0"),
        record(net, ("act:1", "b*", "a*")),
    ):
        net(X)
    with record(net) as seen:
        net(X)
    with pytest.raises(NetworkError, match="no recorded layer is called act:7; this network has act:0"):
        seen.pick(("act:7",), ("relu",))


OTHERS = {
    "relu6": (nn.ReLU6(), F.relu6), "leaky_relu": (nn.LeakyReLU(0.3), F.leaky_relu), "elu": (nn.ELU(), F.elu), "celu": (nn.CELU(), F.celu),
    "selu": (nn.SELU(), torch.selu), "gelu": (nn.GELU(), F.gelu), "silu": (nn.SiLU(), F.silu), "mish": (nn.Mish(), F.mish),
    "softplus": (nn.Softplus(), F.softplus), "hardtanh": (nn.Hardtanh(), F.hardtanh), "hardswish": (nn.Hardswish(), F.hardswish),
    "tanh": (nn.Tanh(), torch.Tensor.tanh), "sigmoid": (nn.Sigmoid(), torch.sigmoid),
    "prelu": (nn.PReLU(), None), "relu": (nn.ReLU(), F.relu),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_can_be_chosen(kind):
    module, function = OTHERS[kind]
    net = Calls(lambda m, h: F.relu(m.other(h) if function is None else function(m.other(h))), other=module)
    with record(net, kinds=(kind,)) as seen:
        net(X)
    functional = ["root:0"] if function else []
    assert list(seen) == ["other:0", *functional, *(["root:1"] if kind == "relu" else [])]
    assert set(seen.kinds.values()) == {kind} and torch.equal(seen["other:0"], module(net.line(X)))
    with record(net) as seen:
        net(X)
    assert [*seen][-1] == ("root:1" if function else "root:0")  # the same name whatever else is recorded
    with record(net, kinds=("relu", "tanh")) as seen:
        net(X)
    assert set(seen.kinds.values()) == {"relu", kind} & {"relu", "tanh"}


def test_recording_keeps_what_is_asked_for():
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.equal(pooled(maps), maps.mean((2, 3))) and torch.equal(pooled(maps.flatten(2)), maps.flatten(2).mean(1))
    assert torch.equal(pooled(maps[:, :, 0, 0]), maps[:, :, 0, 0]) and torch.equal(whole(maps), maps)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4), nn.ReLU())
    x = torch.rand(2, 1, 5, 5)
    with torch.no_grad(), record(net) as full, record(net, keep=pooled) as means:
        net(x)
    assert {name: tuple(value.shape) for name, value in full.items()} == {"1:0": (2, 3, 3, 3), "4:0": (2, 4)}
    assert torch.allclose(means["1:0"], full["1:0"].mean((2, 3))) and torch.equal(means["4:0"], full["4:0"])


def test_what_is_no_activation_of_a_sample_is_left_out():
    """Weights that are rectified, and scalars, have no row per sample."""
    net = Calls(lambda m, h: F.relu(h) + F.relu(m.line.weight).sum() + F.relu(h.sum()) + F.relu(h.sum(1)).sum())
    with record(net) as seen:
        net(X)
    assert list(seen) == ["root:0"]


# ---------------------------------------------------------------- nothing stays behind


def hooks(net: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in net.modules())


def test_exceptions_leave_no_hooks_and_the_next_recording_is_right():
    def explode(m, h):
        h = F.relu(h)
        if m.training:
            raise RuntimeError("inside")
        return m.act(F.relu(h))

    net = calls(explode)
    with pytest.raises(RuntimeError, match="inside"), record(net) as seen:
        net(X)
    assert hooks(net) == 0 and list(seen) == ["root:0"]
    net.eval()
    with record(net) as seen:
        net.train()
        with pytest.raises(RuntimeError):
            net(X)
        net.eval()
        net(X)
    assert hooks(net) == 0 and list(seen) == ["root:0", "root:1", "act:0"]
    net(X)
    assert list(seen) == ["root:0", "root:1", "act:0"]


def test_a_network_that_survives_its_own_exception_keeps_its_names():
    class Fails(nn.Module):
        def forward(self, h):
            raise ValueError("not this time")

    def careful(m, h):
        try:
            h = m.fails(h)
        except ValueError:
            h = F.relu(h)
        return m.act(h)

    net = Calls(careful, act=nn.ReLU(), fails=Fails())
    with record(net) as seen:
        net(X)
    assert list(seen) == ["root:0", "act:0"]


def test_the_answer_of_the_network_is_the_same_and_other_hooks_stay():
    net, called = Nested(), []
    net.blocks[0].register_forward_hook(lambda *_: called.append(1))
    x = torch.randn(4, 6)
    want = net(x)
    with record(net):
        assert torch.equal(net(x), want)
    assert hooks(net) == 1 and len(called) == 4


# ---------------------------------------------------------------- what cannot be recorded


def compiled_inside() -> nn.Module:
    net = calls(RELUS["nn.ReLU"][0])
    net.act.compile(backend="eager")
    return net


def compiled_method() -> nn.Module:
    net = calls(RELUS["nn.ReLU"][0])
    net.forward = torch.compile(net.forward, backend="eager")
    return net


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.compile(Nested(), backend="eager"), r"the network: it is compiled.*before torch.compile \(compiled._orig_mod\)"),
        (lambda: nn.Sequential(torch.compile(nn.ReLU(), backend="eager")), "module '0': it is compiled"),
        (compiled_inside, "module 'act': it is compiled"),
        (compiled_method, "the network: it is compiled"),
    ],
)
def test_compiled_modules_are_refused_with_the_remedy(make, words):
    net = make()
    with pytest.raises(NetworkError, match=words), record(net):
        pytest.fail("was recorded")
    assert hooks(net) == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_are_refused_with_the_remedy():
    for make in (lambda: torch.jit.script(nn.ReLU()), lambda: torch.jit.trace(nn.Linear(4, 3), X)):
        with (
            pytest.raises(NetworkError, match=r"TorchScript module; pass the nn.Module it was scripted from"),
            record(nn.Sequential(make())),
        ):
            pytest.fail("was recorded")


def test_only_modules_and_known_kinds():
    with pytest.raises(NetworkError, match="cannot record function"), record(lambda x: x):
        pass
    with (
        pytest.raises(NetworkError, match="cannot record swish, tan: the known non-linearities are relu, relu6"),
        record(Nested(), kinds=("swish", "tan")),
    ):
        pass


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 9), ("resnet18", 8)])
def test_resnets_have_one_relu_and_two_per_block(name, blocks):
    net = br.load_network(name, shape=(3, 32, 32), classes=10, seed=0)
    with torch.no_grad(), record(net, keep=pooled) as seen:
        net(torch.rand(2, 3, 32, 32))
    assert len(seen) == 1 + 2 * blocks and all(value.ndim == 2 and (value >= 0).all() for value in seen.values())
