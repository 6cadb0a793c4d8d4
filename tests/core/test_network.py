"""Networks: digests, frozen copies, logits, counts."""

import collections
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from brinell.core.component import Component, parse
from brinell.core.errors import NetworkError, SpecError
from brinell.core.network import Counted, NetReference, Network, frozen, logits_of, with_networks


def module(last: nn.Module | None = None) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), last or nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 2))


def test_the_digest_stays_the_same_for_the_same_function():
    a, b = Network(module(), "r"), Network(module(), "r")
    assert a.digest == a.digest == b.digest
    assert a.frozen_copy().digest == a.digest  # evaluation mode and channels-last change no number
    assert Network(module(), "r", notes=("said",), shape=(1, 8, 8), classes=2).digest == a.digest
    a(torch.rand(2, 1, 8, 8)).sum().backward()
    b(torch.rand(2, 1, 8, 8))
    a.module.load_state_dict(b.module.state_dict())
    assert a.digest == b.digest  # gradients are not part of it


def test_the_digest_changes_with_anything_that_changes_the_function():
    base = Network(module(), "r")
    seen = {base.digest, Network(module(), "s").digest, Network(module(), "r", source="def f(): ...").digest}
    for name, value in base.module.state_dict().items():
        twin = Network(module(), "r")
        flat = twin.module.state_dict()[name].view(-1)
        flat[0] += 1 if not value.is_floating_point() else 1e-6 + flat[0].abs() * 1e-6
        seen.add(twin.digest)
    assert len(seen) == 3 + len(base.module.state_dict())
    seen |= {
        Network(module(nn.Tanh()), "r").digest,
        Network(module(nn.LeakyReLU(0.1)), "r").digest,
        Network(module(nn.LeakyReLU(0.2)), "r").digest,
    }
    assert len(seen) == 6 + len(base.module.state_dict())


def test_buffers_that_are_not_saved_are_part_of_the_function():
    def scaled(by: float) -> Network:
        made = module()
        made.register_buffer("scale", torch.tensor(by), persistent=False)
        return Network(made, "r")

    assert scaled(1.0).digest == scaled(1.0).digest != scaled(2.0).digest


def test_the_digest_has_no_addresses():
    class Addressed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.thing = object()

        def forward(self, x):
            return x

        def extra_repr(self) -> str:
            return repr(self.thing)

    assert Network(Addressed(), "r").digest == Network(Addressed(), "r").digest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.bool, torch.int64, torch.complex64])
def test_the_digest_of_any_type(dtype):
    def holding(value) -> Network:
        made = nn.Linear(1, 2, bias=False)
        nn.init.ones_(made.weight)
        made.register_buffer("b", torch.tensor([value, 0]).to(dtype))
        made.register_buffer("scalar", torch.tensor(1).to(dtype))
        made.register_buffer("empty", torch.zeros(0, dtype=dtype))
        return Network(made, "r")

    assert holding(1).digest == holding(1).digest != holding(0).digest


def test_a_frozen_copy_is_its_own_and_ready_to_measure():
    net = Network(module(), "r", ("note",), "src", shape=(1, 8, 8), classes=2)
    twin = net.frozen_copy()
    assert (twin.recipe, twin.notes, twin.source, twin.shape, twin.classes) == ("r", ("note",), "src", (1, 8, 8), 2)
    assert not twin.module.training and net.module.training
    assert not any(p.requires_grad for p in twin.module.parameters()) and all(p.requires_grad for p in net.module.parameters())
    assert twin.module[0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        twin.module[0].weight.zero_()
    assert float(net.module[0].weight.detach().abs().sum()) > 0


def test_modules_that_cannot_be_copied_say_so():
    made = nn.Linear(1, 2)
    made.lock = threading.Lock()
    with pytest.raises(NetworkError, match=r"cannot be copied .*deepcopy"):
        Network(made).frozen_copy()
    with pytest.raises(NetworkError, match="got function"):
        Network(lambda x: x)  # pyright: ignore[reportArgumentType]


def test_logits_in_every_shape_of_answer():
    x, y = torch.rand(3, 4), torch.rand(3, 2)
    for answer in (y, {"logits": y}, SimpleNamespace(logits=y), (y, "more"), [y], collections.namedtuple("Out", "logits loss")(y, 0)):
        assert logits_of(answer, x) is y
    for answer in (torch.tensor(1.0), y, torch.rand(3, 2, 1)), (None, y), collections.namedtuple("Out", "loss scores")(torch.zeros(()), y):
        assert logits_of(answer, x) is y
    for answer in (None, "no", {}, (), {"scores": y}, {"logits": None}, (y, y), (y, torch.rand(3, 512)), (torch.rand(3),)):
        with pytest.raises(NetworkError, match=r"expected \(n, K\) logits"):
            logits_of(answer, x)
    for shape in ((3,), (3, 1), (2, 2), (3, 2, 1)):
        with pytest.raises(NetworkError, match="K >= 2 classes"):
            logits_of(torch.zeros(shape), x)
    for odd in (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.complex64), torch.zeros(3, 2).bool(), y.to_sparse()):
        with pytest.raises(NetworkError, match="expected logits, real floating-point numbers before any argmax"):
            logits_of(odd, x)
    for kind, kept in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert logits_of(y.to(kind), x).dtype is kept


class Answering(nn.Module):
    """Returns what a function makes of the logits."""

    def __init__(self, made, dtype=torch.float32):
        super().__init__()
        self.made, self.layer = made, nn.Linear(4, 2, dtype=dtype)

    def forward(self, x):
        return self.made(self.layer(x))


def test_a_network_says_where_it_takes_its_logits_from():
    x = torch.rand(3, 4)
    for made, said in [
        (lambda y: {"logits": y, "loss": None}, "logits are the entry 'logits' of the dict it returns"),
        (lambda y: (y.sum(), y), "logits are entry 1 of the tuple it returns"),
        (lambda y: SimpleNamespace(logits=y), "logits are the entry 'logits' of the SimpleNamespace it returns"),
    ]:
        net = Network(Answering(made))
        assert torch.equal(net(x), net.module.layer(x)) and torch.equal(net(x), net(x))
        assert net.notes == (said,)
    plain = Network(Answering(lambda y: y))
    plain(x)
    assert plain.notes == ()


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16"])
def test_weights_of_another_type_than_the_samples_are_named(kind):
    with pytest.raises(NetworkError, match=rf"holds {kind} weights and fails on float32 samples .*Pass module.float\(\)"):
        Network(Answering(lambda y: y, getattr(torch, kind)))(torch.rand(3, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Network(Answering(lambda y: y))(torch.rand(3, 5))


def test_counted_counts_samples_both_ways():
    net = Counted(Network(module(), "r").frozen_copy())
    x = torch.rand(5, 1, 8, 8, requires_grad=True)
    net(x).sum().backward()
    net(x.detach())
    assert net.reset() == (10, 5)
    assert net.reset() == (0, 0)


def test_known_logits_are_those_of_the_very_batch():
    net = Counted(Network(module(), "r").frozen_copy())
    x = torch.rand(5, 1, 8, 8)
    logits = torch.zeros(5, 3)
    net.remember(x, logits)
    assert net(x) is logits and net(x.detach()) is logits and net.forwards == 0
    del x  # its memory must not be handed on to another batch that would then be taken for it
    others = [torch.rand(5, 1, 8, 8) for _ in range(8)]
    assert all(net(other) is not logits for other in others)


def test_frozen_puts_everything_back_also_after_an_error():
    made = module()
    made[1].eval()
    made[0].weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="inside"), frozen(Network(made)):
        assert not any(part.training for part in made.modules()) and not any(p.requires_grad for p in made.parameters())
        raise RuntimeError("inside")
    assert made.training and made[0].training and not made[1].training
    assert [name for name, p in made.named_parameters() if not p.requires_grad] == ["0.weight"]
    with frozen(None), frozen(lambda x: x):
        pass


def test_a_reference_to_a_network_of_the_lab():
    assert parse("net(standard)") == NetReference(label="standard")
    assert parse(NetReference(label="my net (1)").spec()).label == "my net (1)"
    with pytest.raises(SpecError):
        NetReference(label="")


def test_references_are_bound_at_any_depth():
    class Holder(Component, name="test_holder"):
        parts: tuple[Component, ...] = ()
        one: Component | None = None

    net, other = Network(nn.Linear(4, 3)), Network(nn.Linear(4, 3))
    inner = Holder(parts=(NetReference(label="b"),))
    item = Holder(parts=(inner, NetReference(label="a")), one=NetReference(label="b"))
    bound = with_networks(item, {"a": net, "b": other})
    assert bound.spec() == item.spec()
    assert bound.parts[1].network is net and bound.one.network is other and bound.parts[0].parts[0].network is other
    with pytest.raises(NetworkError, match="let a lab measure"):
        _ = item.one.network
    with pytest.raises(NetworkError, match="no network of this run is called 'b'; there are a"):
        with_networks(item, {"a": net})
    plain = Holder(parts=(Holder(),))
    assert with_networks(plain, {}) is plain
