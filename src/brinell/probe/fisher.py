"""The Fisher matrix of the output in the input: which small change of a sample moves the predicted distribution most?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.confidence import quantile_interval
from brinell.core.draws import Draws
from brinell.core.measurement import Bound, Reading
from brinell.core.network import frozen
from brinell.core.probe import Needs, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.probe.logit_scale import NORMALISED, RAW, Normalised, unscaled

Net = Callable[[Tensor], Tensor]


class Fisher:
    """Products with the input Fisher matrix of each sample, F = J^T (diag P - P P^T) J of shape (d, d), without the matrix.

    J is the Jacobian of the logits over `scale`, P their softmax. One forward pass; a product costs two passes backwards. Since
    KL(softmax f(x) | softmax f(x + v)) = v^T F v / 2 + O(v^3), F says what small perturbations do.

    Arguments:
        net: twice differentiable where it is passed (ReLU is). x: (n, *d). scale: of the logits.

    Example:
        >>> fisher = Fisher(lambda x: x @ torch.tensor([[2.0, 0.0]]), torch.zeros(1, 1))
        >>> fisher(torch.ones(1, 1))                               # p (1 - p) 2^2
        tensor([[1.]])
    """

    def __init__(self, net: Net, x: Tensor, scale: float = 1.0) -> None:
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            self.logits = net(self.x) / scale
            self.p = self.logits.detach().softmax(1)
            self.u = torch.zeros_like(self.logits, requires_grad=True)
            self.tied = self.logits.requires_grad  # does the output depend on the input at all?
            self.pulled = (
                torch.autograd.grad(self.logits, self.x, self.u, create_graph=True)[0] if self.tied else None
            )  # J^T u, linear in u

    def push(self, v: Tensor) -> Tensor:
        """J v, (n, K) from (n, *d): the derivative of J^T u in u."""
        if self.pulled is None or not self.pulled.requires_grad:
            return torch.zeros_like(self.p)
        with torch.enable_grad():
            (found,) = torch.autograd.grad(self.pulled, self.u, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.p) if found is None else found.detach()

    def pull(self, u: Tensor) -> Tensor:
        """J^T u, (n, *d) from (n, K)."""
        if not self.tied:
            return torch.zeros_like(self.x)
        with torch.enable_grad():
            (found,) = torch.autograd.grad(self.logits, self.x, u, retain_graph=True)
        return found.detach()

    def __call__(self, v: Tensor) -> Tensor:
        """F v, (n, *d)."""
        moved = self.push(v)
        return self.pull(self.p * (moved - (self.p * moved).sum(1, keepdim=True)))


def fisher_rows(net: Net, x: Tensor, scale: float = 1.0) -> Tensor:
    """(n, K, D) float64 rows B with F = B^T B: B_k = sqrt(P_k) (J_k - sum_j P_j J_j). One forward and K backward passes.

    Example:
        >>> rows = fisher_rows(lambda x: x @ torch.tensor([[2.0, 0.0]]), torch.zeros(1, 1))
        >>> round(rows.square().sum().item(), 6)
        1.0
    """
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        logits = net(z) / scale
        if not logits.requires_grad:
            return torch.zeros(len(x), logits.shape[1], math.prod(x.shape[1:]), dtype=torch.float64, device=x.device)
        jacobian = torch.stack([torch.autograd.grad(column.sum(), z, retain_graph=True)[0].flatten(1) for column in logits.unbind(1)], 1)
    p, j = logits.detach().double().softmax(1)[:, :, None], jacobian.double()
    return p.sqrt() * (j - (p * j).sum(1, keepdim=True))


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """(n,) float64: the largest eigenvalue of each sample's symmetric positive semi-definite matrix by Lanczos' method, from below.

    The largest eigenvalue of the tridiagonal matrix that `iterations` products make, with full re-orthogonalisation. Exact, to
    rounding, once there are as many products as the matrix has distinct non-zero eigenvalues and 1; the Fisher matrix of K classes has
    K - 1 at most.

    Arguments:
        product: (n, *d) to (n, *d). start: (n, *d) directions, not 0.

    Example:
        >>> matrix = torch.diag(torch.tensor([1.0, 4.0, 2.0]))
        >>> largest_eigenvalue(lambda v: v @ matrix, torch.ones(1, 3), 3)
        tensor([4.0000], dtype=torch.float64)
    """
    v = start.double().flatten(1)
    v = v / v.norm(dim=1, keepdim=True)
    basis, diagonal, beside = [v], list[Tensor](), list[Tensor]()
    for _ in range(iterations):
        w = product(basis[-1].reshape(start.shape).to(start.dtype)).double().flatten(1)
        diagonal.append((w * basis[-1]).sum(1))
        known = torch.stack(basis, 1)
        for _ in range(2):  # once leaves what rounding made of it
            w = w - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", known, w), known)
        size = w.norm(dim=1)
        ended = size <= 1e-10 * torch.stack(diagonal).abs().amax(0)  # the start is used up: later rows are 0
        beside.append(torch.where(ended, 0.0, size))
        basis.append(torch.where(ended[:, None], 0.0, w / size.clamp(min=1e-300)[:, None]))
    small = torch.diag_embed(torch.stack(diagonal, 1))
    off = torch.stack(beside[:-1], 1) if iterations > 1 else v.new_zeros(len(v), 0)
    small = small + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    return torch.linalg.eigvalsh(small)[:, -1].clamp(min=0)


def box_maximum(product: Callable[[Tensor], Tensor], starts: Iterator[Tensor], iterations: int) -> Tensor:
    """(n,) float64: the largest v^T F v over |v|_inf <= 1 that v <- sign(F v) finds from some starts: a LOWER bound.

    The form is convex, so its maximum is at a vertex and no step makes it smaller. Finding the largest is NP-hard in general; with two
    classes F has rank 1 and one step finds it.

    Arguments:
        product: v to F v. starts: (n, *d) directions.
    """
    most = None
    for v in starts:
        v = v.sign()
        for _ in range(iterations):
            moved = product(v)
            form = (moved.double() * v.double()).flatten(1).sum(1)
            most = form if most is None else torch.maximum(most, form)
            v = torch.where(moved == 0, v, moved.sign())
    return torch.zeros(0, dtype=torch.float64) if most is None else most.clamp(min=0)


class FisherProbe(Normalised, name="fisher"):
    """The small-eps limit of psi, from the largest eigenvalue of the Fisher matrix of the output in the input.

        F(x) = J^T (diag P - P P^T) J;    max over |v|_2 <= eps of KL -> eps^2 lambda_max / 2,    so eps^2 psi -> 2 / lambda_max

    as eps -> 0, in a ball whose walls are not met. In the Linf norm the limit is eps^2 psi -> 2 / m with m the largest v^T F v over the
    vertices of the unit cube, for which `box_maximum` finds a LOWER bound, so that 2 / m is an UPPER bound.

    Readings, of layer `raw` and `normalised` (see `Normalised`), for the samples as the network saw them:

    - `fisher_eigenvalue`: the median of lambda_max, with an interval of order statistics; array: of each sample. EXACT up to
      `exact` classes; with more a LOWER bound by Lanczos' method, which is nearly always attained;
    - `psi_limit_l2`: the median of 2 / lambda_max, in the units of x squared; `psi_limit_linf`, UPPER: that of 2 / m. UNDEFINED where
      half of the samples have a gradient of 0.

    Arguments:
        exact: most classes for which the Jacobian is formed, by K passes backwards. iterations: products of Lanczos and of the search
            over vertices. restarts: of the latter. scale: of the logits. confidence: of the intervals.

    References: the second-order expansion of KL is classical: Kullback (1959), "Information Theory and Statistics", chapter 2; Zhao et
        al. (2019), "The Adversarial Attack and Detection under the Fisher Information Metric", AAAI, arXiv 1810.03806 (input space);
        Miyato et al. (2018), "Virtual Adversarial Training", arXiv 1704.03976 (its power iteration).

    Example:
        >>> FisherProbe(exact=2).spec()
        'fisher(exact=2)'
    """

    exact: int = Field(default=16, ge=0)
    iterations: int = Field(default=12, ge=1)
    restarts: int = Field(default=3, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    @property
    def cost(self) -> tuple[int, int]:
        return 2, 20

    def observe(self, view: View, *, draws: Draws) -> Tally:
        columns: dict[str, Tensor] = {"id": view.ids}
        with frozen(view.net):
            for layer, scale in self.scales.items():
                largest, vertex = self._of(view, scale, draws)
                columns |= {f"largest {layer}": largest, f"vertex {layer}": vertex}
        exact = torch.tensor(int(view.logits.shape[1] <= self.exact))
        return Tallies({"rows": Rows.of(columns), "scale": self.noted() + Max.of(exact=exact)})

    def _of(self, view: View, scale: float, draws: Draws) -> tuple[Tensor, Tensor]:
        """(n,) the largest eigenvalue, and the largest form found over the unit cube."""
        if view.net is None:
            raise TypeError("the fisher probe needs the network in its view")
        x, shape = view.z.double(), view.z.shape[1:]
        starts = [draws.at("start", k).normal(*shape, dtype=torch.float64).to(x) for k in range(self.restarts)]
        if view.logits.shape[1] <= self.exact:
            rows = fisher_rows(view.net, view.z, scale)
            form = rows @ rows.transpose(1, 2)
            form = torch.where(form.isfinite().all((1, 2))[:, None, None], form, 0.0)
            values, vectors = torch.linalg.eigh(form)
            first = (vectors[:, :, -1:].transpose(1, 2) @ rows).reshape(x.shape)  # the leading direction, the best start

            def product(v: Tensor) -> Tensor:
                flat = v.flatten(1)[:, :, None]
                return (rows.transpose(1, 2) @ (rows @ flat)).reshape(v.shape)

            fine = rows.isfinite().flatten(1).all(1)
            vertex = box_maximum(product, iter([first, *starts]), self.iterations)
            return torch.where(fine, values[:, -1].clamp(min=0), torch.nan), torch.where(fine, vertex, torch.nan)
        fisher = Fisher(view.net, view.z, scale)
        starts = [start.to(view.z.dtype) for start in starts]
        return largest_eigenvalue(fisher, starts[0], self.iterations), box_maximum(fisher, iter(starts), self.iterations)

    def read(self, tally: Tally) -> list[Reading]:
        names = ("fisher_eigenvalue", "psi_limit_l2", "psi_limit_linf")
        if "rows" not in tally:
            return [Reading.undefined(names[0], "there is no sample to measure", layer=RAW)]
        rows = {name: value.numpy() for name, value in Rows(tally.parts["rows"].values).sorted().values.items()}
        n, known = len(rows["id"]), bool(int(tally.parts["scale"]["exact"]))
        readings: list[Reading] = []
        for layer in (RAW, NORMALISED):
            if f"largest {layer}" not in rows:
                readings += [unscaled(name, tally.parts["scale"], n) for name in names]
                continue
            largest, vertex = rows[f"largest {layer}"], rows[f"vertex {layer}"]
            if not (np.isfinite(largest).all() and np.isfinite(vertex).all()):
                readings += [Reading.undefined(name, "a gradient or a logit is NaN or inf", layer=layer, n=n) for name in names]
                continue
            readings.append(self._median(names[0], largest, layer, Bound.EXACT if known else Bound.LOWER))
            for name, values, bound in ((names[1], largest, Bound.EXACT if known else Bound.UPPER), (names[2], vertex, Bound.UPPER)):
                with np.errstate(divide="ignore"):
                    readings.append(self._median(name, 2 / values, layer, bound))
        return readings

    def _median(self, name: str, values: np.ndarray, layer: str, bound: Bound) -> Reading:
        value, low, high = quantile_interval(values, 0.5, self.confidence)
        if not np.isfinite(value):
            return Reading.undefined(name, f"{np.isinf(values).sum()} of {len(values)} samples have gradient 0", layer=layer, n=len(values))
        return Reading(name, value, layer, bound, low, high if np.isfinite(high) else None, self.confidence, len(values), values, "sample")
