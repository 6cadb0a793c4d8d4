"""Networks with known answers: what a correct attack, certificate, or probe must read off them follows from a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from brinell.core import norms
from brinell.core.errors import NetworkError
from brinell.core.network import Architecture
from brinell.models.shapes import features


def exact_margin(weight: Tensor, bias: Tensor | None, x: Tensor, y: Tensor, norm: float) -> Tensor:
    """The smallest distance at which the linear classifier argmax(W x + b) can leave class y: the exact answer of every attack.

        r(x, y) = max(0, min over k != y of ((w_y - w_k) . x + b_y - b_k) / |w_y - w_k|_q),      1/norm + 1/q = 1

    By Hoelder's inequality no step shorter than a term's value brings class k level with y, and a step of that length along
    the dual direction does. There is no box: a domain such as [0, 1] can only make the distance larger. Any longer step, and
    none shorter, flips the sample; at exactly r the two classes tie.

    Arguments:
        weight: (K, D), K >= 2. bias: (K,) or None for 0. x: (n, *d) with D numbers per sample. y: (n,) integer classes.
        norm: 1, 2 or inf, in which the step is measured.

    Returns: (n,) float64, in the units of x. 0 where x is classified as another class already, or tied; inf where no other class
        can ever win (its weight row equals that of y and its bias is smaller).

    Raises:
        NetworkError: norm is none of 1, 2, inf, the shapes do not fit, or a label is outside 0..K-1.

    References: Moosavi-Dezfooli, Fawzi & Frossard (2016), "DeepFool", CVPR, https://arxiv.org/abs/1511.04599, section 3 (affine
        multiclass classifier in L2) and section 3.3 (other norms).

    Example:
        >>> weight, x, y = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.5]]), torch.tensor([0])
        >>> [round(exact_margin(weight, None, x, y, norm).item(), 4) for norm in (1, 2, math.inf)]
        [1.25, 1.0, 0.7143]
    """
    if norm not in (1, 2, math.inf):
        raise NetworkError(f"exact_margin: norm={norm!r} is not one of 1, 2, inf")
    flat, w = x.flatten(1).double(), weight.double()
    b = torch.zeros(len(w), dtype=w.dtype, device=w.device) if bias is None else bias.double()
    if w.ndim != 2 or len(w) < 2 or b.shape != w.shape[:1] or flat.shape[1] != w.shape[1] or y.shape != flat.shape[:1]:
        shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in (("weight", w), ("bias", b), ("x", x), ("y", y)))
        raise NetworkError(f"exact_margin needs weight (K, D), bias (K,), x (n, *d) with D numbers each and y (n,); got {shapes}")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(w):
        raise NetworkError(f"exact_margin: labels lie in {int(y.min())}..{int(y.max())}, but the weights have {len(w)} classes")
    logits = flat @ w.T + b
    gaps = logits.gather(1, y[:, None]) - logits  # (n, K): how far y leads
    slopes = norms.length((w[:, None] - w[None]).flatten(0, 1), norms.dual(norm)).reshape(len(w), len(w))[y]
    reach = torch.where(slopes > 0, gaps / slopes, torch.where(gaps > 0, math.inf, 0.0))
    return reach.scatter(1, y[:, None], math.inf).amin(1).clamp(min=0)


class Linear(Architecture, name="linear"):
    """The flattened input times one weight matrix plus a bias: every robustness question has the closed form `exact_margin`.

    Weights and bias have torch's default initialisation.

    Example:
        >>> [tuple(p.shape) for p in Linear().build((1, 8, 8), 10).parameters()]
        [(10, 64), (10,)]
    """

    bias: bool = True

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(features(shape), classes, bias=self.bias))


def linear_network(weight: Tensor, bias: Tensor | None = None) -> nn.Sequential:
    """The module x -> W x + b of given weights, for inputs of any shape with D numbers.

    Arguments:
        weight: (K, D), copied. bias: (K,) or None for no bias.

    Raises:
        NetworkError: the shapes do not fit.

    Example:
        >>> linear_network(torch.eye(2))(torch.tensor([[3.0, 4.0]])).tolist()
        [[3.0, 4.0]]
    """
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        got = tuple(weight.shape), None if bias is None else tuple(bias.shape)
        raise NetworkError(f"a linear network needs weight (K, D) and bias (K,) or None; got {got[0]} and {got[1]}")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return nn.Sequential(nn.Flatten(), layer)


class OneHotUnits(Architecture, name="one_hot_units"):
    """Hidden unit k responds to class k alone: its class selectivity is 1, and so is the network's accuracy.

        hidden = relu(x[:K] - 1/2),      logits = hidden        (x flattened; K classes)

    The answers hold on `one_hot_samples`, where unit k responds with 1/2 to class k and with exactly 0 to every other: class
    means mu_max = 1/2 and mu_-max = 0, so (mu_max - mu_-max) / (mu_max + mu_-max) = 1; of the K units of a sample, one is active.
    Nothing is random.

    Raises:
        NetworkError: a sample has less numbers than there are classes.

    Example:
        >>> net, y = OneHotUnits().build((1, 2, 2), 3), torch.tensor([2, 0])
        >>> net(one_hot_samples(y, (1, 2, 2))).tolist()
        [[0.0, 0.0, 0.5], [0.5, 0.0, 0.0]]
    """

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if features(shape) < classes:
            raise NetworkError(f"one_hot_units needs a number per class; samples of shape {shape} have less than {classes}")
        hidden = linear_network(torch.eye(classes, features(shape)), torch.full((classes,), -0.5))
        return nn.Sequential(*hidden, nn.ReLU(), linear_network(torch.eye(classes))[1])


def one_hot_samples(y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The samples on which `one_hot_units` has known answers: number y of the flattened sample is 1, all others are 0.

    Arguments:
        y: (n,) integer classes, each less than the numbers of one sample. shape: of one sample.

    Returns: (n, *shape) float32 in [0, 1].

    Raises:
        NetworkError: a label has no number of its own.

    Example:
        >>> one_hot_samples(torch.tensor([1]), (2, 2)).tolist()
        [[[0.0, 1.0], [0.0, 0.0]]]
    """
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < features(shape):
        raise NetworkError(f"one_hot_samples: labels must lie in 0..{features(shape) - 1} for samples of shape {shape}")
    return nn.functional.one_hot(y.long(), features(shape)).float().reshape(len(y), *shape)


class RankFeatures(Architecture, name="rank_features"):
    """Hidden features of known rank: `width` ReLU units that repeat the first `rank` numbers of the input in turn.

        hidden_j = relu(x[j mod rank]),      logits = linear(hidden)        (x flattened)

    On inputs >= 0 the ReLU changes nothing and the features are exact copies, so their matrix over any samples has exactly the
    rank of the first `rank` columns of the inputs: `rank` itself for generic samples, n >= rank of them (n > rank after
    centring). With width = m * rank the covariance of the features has the eigenvalues m * lambda_i, lambda_i those of the
    covariance of these columns, and zeros. The head has torch's default initialisation.

    Arguments:
        rank: of the features. width: number of hidden units, at least rank.

    Raises:
        SpecError: width < rank. NetworkError: a sample has less numbers than rank.

    Example:
        >>> net = RankFeatures(rank=3, width=12).build((1, 4, 4), 10)
        >>> int(torch.linalg.matrix_rank(net[:3](torch.rand(50, 1, 4, 4))))
        3
    """

    rank: int = Field(4, ge=1, le=4096)
    width: int = Field(32, ge=1, le=1 << 16)

    @model_validator(mode="after")
    def _check(self) -> RankFeatures:
        if self.width < self.rank:
            raise ValueError(f"width={self.width} units cannot have rank={self.rank}")
        return self

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if features(shape) < self.rank:
            raise NetworkError(f"{self.spec()}: samples of shape {shape} have less than {self.rank} numbers")
        copies = torch.zeros(self.width, features(shape))
        copies[torch.arange(self.width), torch.arange(self.width) % self.rank] = 1
        return nn.Sequential(*linear_network(copies), nn.ReLU(), nn.Linear(self.width, classes))


class Mixture(nn.Module):
    """Several networks of which one is drawn at random for each query, seen as one: the logits are the logarithm of the mean probability.

        logits(x) = log((1/K) sum_k softmax(f_k(x))),      right(x, y) = (1/K) |{k : f_k predicts y at x}|

    What an attack can do to a random choice is a share of the members, `right`, and not whether the mean errs: at a point that breaks
    one of two members half of all queries go wrong, though the mean may still be right.

    Arguments:
        members: at least one network of the same inputs and classes.

    Raises:
        NetworkError: there is no member.

    Example:
        >>> pair = Mixture([linear_network(torch.tensor([[1.0], [0.0]])), linear_network(torch.tensor([[-1.0], [0.0]]))])
        >>> pair.right(torch.tensor([[2.0]]), torch.tensor([0])).item()
        0.5
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise NetworkError("a mixture needs at least one network")
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x).log_softmax(1) for member in self.members]).logsumexp(0) - math.log(len(self.members))

    @torch.no_grad()
    def right(self, x: Tensor, y: Tensor) -> Tensor:
        """(n,) float64: the share of members that give the label, the expected accuracy of a random choice."""
        return torch.stack([member(x).argmax(1) == y for member in self.members]).double().mean(0)
