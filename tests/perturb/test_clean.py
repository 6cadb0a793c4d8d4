import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import DataError
from brinell.core.threat import Ball
from brinell.perturb.clean import Clean


def test_returns_the_input_in_memory_of_its_own(ask):
    x = torch.randn(5, 3, 4, 6) * 100  # any domain
    z = ask(Clean(), x)
    assert torch.equal(z, x)
    z.add_(1)
    assert not torch.equal(z, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_shape_and_type_of_any_float_batch(ask, dtype):
    for shape in ((2, 7), (1, 1, 8, 8), (3, 2, 5), (0, 4)):
        x = torch.rand(shape).to(dtype)
        z = ask(Clean(), x)
        assert z.shape == x.shape
        assert z.dtype == dtype
        assert torch.equal(z, x)


def test_copies_a_view_that_shares_memory_with_a_larger_tensor(ask):
    whole = torch.rand(4, 3, 8, 8)
    z = ask(Clean(), whole[1:3, :, ::2])
    assert torch.equal(z, whole[1:3, :, ::2])
    assert z.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()


def test_stays_in_every_ball(ask):
    x = torch.rand(3, 10)
    assert bool(Ball(eps=0.0).contains(x, ask(Clean(), x)).all())


def test_has_a_text_form():
    assert Clean().spec() == "clean"
    assert parse("clean") == Clean()


def test_refuses_integers(ask):
    with pytest.raises(DataError, match="clean needs floating-point inputs"):
        ask(Clean(), torch.zeros(2, 3, dtype=torch.int64))
