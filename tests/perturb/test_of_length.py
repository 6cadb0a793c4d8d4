"""Corruptions of a given length keep their direction and get its size."""

import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.perturbation import points

X = derive(0, "x", ids=range(6)).uniform(3, 16, 16, low=0.3, high=0.7)
Y = torch.zeros(6, dtype=torch.int64)


def ask(spec, x=X):
    return points(parse(spec)(None, x, Y[: len(x)], draws=derive(0, ids=range(len(x)))))


@pytest.mark.parametrize("inner", ["fog(severity=5)", "gaussian_noise(severity=1)", "jpeg_compression(severity=3)"])
@pytest.mark.parametrize("eps", [0.05, 1.0])
def test_the_length_is_as_asked_and_the_direction_that_of_the_corruption(inner, eps):
    change = (ask(f"of_length(corruption={inner}, eps={eps})") - X).flatten(1).double()
    whole = (ask(inner) - X).flatten(1).double()
    assert change.norm(dim=1).numpy() == pytest.approx(eps, rel=1e-4)
    if eps < whole.norm(dim=1).min():  # no wall is met on the way
        assert torch.nn.functional.cosine_similarity(change, whole).min() > 0.9999


def test_what_the_corruption_leaves_alone_stays():
    grey = torch.full_like(X, 0.5)
    assert torch.equal(ask("of_length(corruption=low_pass, eps=1)", grey), grey)


def test_no_size_is_no_change():
    assert torch.allclose(ask("of_length(corruption=fog(severity=3), eps=0)"), X)


@pytest.mark.parametrize("bad", ["of_length(corruption=pgd)", "of_length(corruption=fog, eps=-1)"])
def test_nonsense_is_refused(bad):
    with pytest.raises(SpecError):
        parse(bad)
