"""All geometry of the p-norms, p in {0, 1, 2, inf}: lengths, dual directions, projections, uniform draws.

Every function takes per-sample differences `v` of shape (n, *d) and treats each sample as one flat vector. Nothing outside this
file computes a norm, a projection or a steepest direction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.samples import PerSample, X, XMask


def length(v: X, p: float) -> PerSample:
    """The p-norm of each sample, (n,): sum of |v|^p to the 1/p; the count of non-zeros for p = 0, the maximum for p = inf.

    Example:
        >>> length(torch.tensor([[3.0, -4.0]]), 2).item(), length(torch.tensor([[3.0, -4.0]]), 0).item()
        (5.0, 2.0)
    """
    if v[0:1].numel() == 0:
        return v.new_zeros(len(v))
    entries = tuple(range(1, v.ndim))  # not flattened, which would copy a channels-last batch
    if p == math.inf:
        return v.abs().amax(entries)
    if p == 0:
        return v.count_nonzero(entries).to(v.dtype)
    return torch.linalg.vector_norm(v, ord=p, dim=entries)


def extremes(v: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest entry of each sample, (n,) each; both NaN where one is NaN.

    Example:
        >>> extremes(torch.tensor([[3.0, -4.0], [1.0, math.nan]]))
        (tensor([-4., nan]), tensor([3., nan]))
    """
    entries = tuple(range(1, v.ndim))
    return v.amin(entries), v.amax(entries)


def dual(p: float) -> float:
    """The exponent q with 1/p + 1/q = 1: the norm in which a gradient is measured under an L_p budget."""
    return {1: math.inf, 2: 2.0, math.inf: 1.0}[p]


def scaled(v: X, factor: PerSample) -> X:
    """Each sample times its own number: (n, *d) by (n,)."""
    return v * factor.reshape(-1, *(1,) * (v.ndim - 1))


def steepest(g: X, p: float, free: XMask | None = None) -> X:
    """The direction u, |u|_p = 1, that maximises <g, u>; then <g, u> is the dual norm of g. Zero where g is zero.

    p = inf: sign(g). p = 2: g / |g|_2. p = 1: the sign of the largest entry there, nothing elsewhere.

    Arguments:
        g: (n, *d). free: (n, *d) bool, entries that may move at all (None: all); the others get 0.
    """
    if free is not None:
        g = g * free
    if p == math.inf:
        return g.sign()
    flat = g.flatten(1)
    size = flat.abs().amax(1, keepdim=True)
    flat = torch.where(size > 0, flat / size.clamp(min=torch.finfo(g.dtype).tiny), 0.0)  # no underflow of tiny gradients
    if p == 2:
        norm = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        return torch.where(norm > 0, flat / norm.clamp(min=1e-30), 0.0).reshape(g.shape)
    best = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter_(1, best, flat.gather(1, best).sign()).reshape(g.shape)


def sparse_step(g: X, z: X, size: float, count: int, low: float, high: float) -> X:
    """The step of L1 length `size` at most that gains most along g, with at most size / count per entry, inside low <= z <= high.

    Arguments:
        g, z: (n, *d) gradients and points. count: into how many equal parts the step is cut where no wall is near.

    Example:
        >>> g, z = torch.tensor([[3.0, -2.0, 1.0]]), torch.tensor([[0.9, 0.5, 0.5]])
        >>> sparse_step(g, z, 0.4, 1, 0.0, 1.0)
        tensor([[ 0.1000, -0.3000,  0.0000]])
    """
    slope, point = g.flatten(1), z.flatten(1)
    room = torch.where(slope > 0, high - point, point - low).clamp(0, size / count) * (slope != 0)
    order = slope.abs().argsort(1, descending=True)
    most = room.gather(1, order)
    taken = most.minimum((size - (most.cumsum(1) - most)).clamp(min=0))
    return (torch.zeros_like(slope).scatter(1, order, taken) * slope.sign()).reshape(g.shape)


def support(a: X, eps: float, p: float, low: Tensor, high: Tensor) -> PerSample:
    """The largest <a, v> over |v|_p <= eps and low <= v <= high, where low <= 0 <= high; up to rounding never less than it. (n,) float64.

    By duality it is the least of   eps |b|_q + sum max((a - b) low, (a - b) high)   over all b, and every b bounds it from above. b is
    a, cut to what the best v (found by `project` for p = 2, by filling in the order of slopes for p = 1) says.

    Arguments:
        a, low, high: (n, *d). eps: finite.

    Example:
        >>> a, room = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.1, 9.0]])
        >>> support(a, 1.0, 1, -room, room), support(a, 1.0, 2, -room, room)         # 3 * 0.1 + 4 * sqrt(1 - 0.1 ** 2) for p = 2
        (tensor([4.], dtype=torch.float64), tensor([4.2799], dtype=torch.float64))
    """
    slope, low, high = a.flatten(1).double(), low.flatten(1).double(), high.flatten(1).double()
    size, room = slope.abs(), torch.where(slope > 0, high, -low)
    if p == math.inf:
        return (size * room.clamp(max=eps)).sum(1)
    if p == 1:
        order = size.argsort(dim=1, descending=True)
        most, steps = room.gather(1, order), size.gather(1, order)
        filled = (most.cumsum(1) < eps).sum(1, keepdim=True)  # the first entry that the budget does not fill sets the price
        price = torch.where(filled < size.shape[1], steps.gather(1, filled.clamp(max=size.shape[1] - 1)), 0.0)
        part = size.minimum(price)
        return eps * part.amax(1) + _walled(size - part, room)
    reach = size.amax(1, keepdim=True).clamp(min=1e-300)
    v = project(slope / reach * (1e6 * (1 + eps)), eps, 2, low, high).abs()
    moved = (v > 0) & (size > 0)
    price = torch.where(moved, size / v.clamp(min=1e-300), math.inf).amin(1, keepdim=True)  # size = price * v where no wall stops v
    price = torch.where(torch.linalg.vector_norm(v, dim=1, keepdim=True) < eps * (1 - 1e-12), 0.0, price)  # the walls alone stop v
    part = torch.where(price.isfinite(), size.minimum(torch.where(price > 0, price * room, 0.0)), size)
    return eps * torch.linalg.vector_norm(part, dim=1) + _walled(size - part, room)


def _walled(size: Tensor, room: Tensor) -> PerSample:
    """The sum of size * room, where no size is infinitely often no room."""
    return torch.where(size > 0, size * room, 0.0).sum(1)


def project(v: X, eps: float | PerSample, p: float, low: Tensor | float = -math.inf, high: Tensor | float = math.inf) -> X:
    """The point nearest to `v` (in L2) with |point|_p <= eps and low <= point <= high, where low <= 0 <= high.

    p = inf clamps. p = 2: clamp(t v, low, high) with the largest t <= 1 that is short enough. p = 1:
    clamp(sign(v) max(|v| - s, 0), low, high) with the smallest such s >= 0. Both are the exact projection onto the
    intersection (its optimality conditions, as the box contains 0); t and s are found to the rounding of float64.

    Arguments:
        v: (n, *d). eps: one radius, or one per sample (n,). low, high: numbers or tensors that broadcast to v.

    References: Duchi et al. (2008), "Efficient Projections onto the l1-Ball for Learning in High Dimensions", ICML (no box);
        Michelot (1986), "A Finite Algorithm for Finding the Projection of a Point onto the Canonical Simplex of R^n", JOTA 50
        (without a box the Newton steps here are his). The box is our addition.
    """
    inside = torch.clamp(v, min=low, max=high) if isinstance(low, float) and isinstance(high, float) else v.maximum(
        torch.as_tensor(low, dtype=v.dtype, device=v.device)).minimum(torch.as_tensor(high, dtype=v.dtype, device=v.device))  # fmt: skip
    if isinstance(eps, Tensor) and p == math.inf:
        most = eps.to(v.dtype).reshape(-1, *(1,) * (v.ndim - 1))
        return inside.maximum(-most).minimum(most)
    if v[0:1].numel() == 0:
        return inside
    if not isinstance(eps, Tensor) and (p == math.inf or eps == 0):
        return inside.clamp(-eps, eps)
    over = length(inside, p) > eps
    if not bool(over.any()):
        return inside
    out = inside.clone()
    part = v[over].flatten(1)
    room = torch.where(part >= 0, _rows(high, v, over), -_rows(low, v, over))
    most = eps[over].double()[:, None] if isinstance(eps, Tensor) else eps
    shrunk = _shrink_l2(part, room, most) if p == 2 else _shrink_l1(part, room, most)
    out[over] = shrunk.reshape(-1, *v.shape[1:]).to(v.dtype)
    return out


def to_plane(g: X, gap: PerSample, p: float, low: Tensor | float = -math.inf, high: Tensor | float = math.inf) -> X:
    """The shortest v, in the p-norm, with <g, v> = gap and low <= v <= high, where low <= 0 <= high.

    With slope a_i = |g_i| and room r_i up to the wall in the direction of gain, |v_i| is min(t, r_i) for p = inf and min(t a_i, r_i)
    for p = 2, where t makes the sum of a_i |v_i| equal |gap|; for p = 1 entries are filled to their walls in falling order of
    slope. All exact to the rounding of float64. Where even the corner of the box falls short, v is that corner; 0 where g is 0.

    Arguments:
        g: (n, *d). gap: (n,). low, high: numbers or tensors that broadcast to g.

    References: Croce & Hein (2020), "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", ICML,
        arXiv 1907.02044, section 2.2 (the same projections, by sorting).

    Example:
        >>> to_plane(torch.tensor([[3.0, 4.0]]), torch.tensor([5.0]), 2)
        tensor([[0.6000, 0.8000]])
    """
    rise = g.flatten(1).double() * gap.double().sign()[:, None]
    size = rise.abs().amax(1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    slope, goal = rise.abs() / size, gap.double().abs()[:, None] / size
    room = torch.where(rise > 0, _rows(high, g, slice(None)), -_rows(low, g, slice(None))).double()
    room = torch.where(slope > 0, room, 0.0)
    if p == 1:
        order = slope.argsort(dim=1, descending=True, stable=True)
        steep = slope.gather(1, order).clamp(min=1e-300)
        most = room.gather(1, order).minimum(goal / steep)
        gain = steep * most
        part = ((goal - (gain.cumsum(1) - gain)).clamp(min=0) / steep).minimum(most)
        moved = torch.zeros_like(slope).scatter(1, order, part)
    else:
        speed = slope if p == 2 else (slope > 0).double()
        moved = _fill(slope, speed, room, goal)
    return (rise.sign() * moved).reshape(g.shape).to(g.dtype)


def _fill(slope: Tensor, speed: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """min(t speed, room) with <slope, .> = goal. The sum is concave in t, so that solving for t with the entries known to have
    stopped never overshoots; each round stops more of them until it is right (exact, few rounds)."""
    pace = slope * speed
    total = pace.sum(1, keepdim=True)
    t = torch.where(total > 0, goal / total.clamp(min=1e-300), 0.0)
    while True:
        stopped = t * speed >= room
        left = (goal - torch.where(stopped, slope * room, 0.0).sum(1, keepdim=True)).clamp(min=0)
        moving = torch.where(stopped, 0.0, pace).sum(1, keepdim=True)
        new = torch.where(moving > 0, left / moving.clamp(min=1e-300), t).maximum(t)
        if not bool((new > t * (1 + 1e-15)).any()):  # NaN ends it too
            return (t * speed).minimum(room)
        t = new


def _rows(bound: Tensor | float, v: Tensor, rows: Tensor | slice) -> Tensor:
    full = bound if isinstance(bound, Tensor) else torch.full((), bound, dtype=v.dtype, device=v.device)
    return full.expand(v.shape)[rows].flatten(1)


def _shrink_l2(v: Tensor, room: Tensor, eps: Tensor | float) -> Tensor:
    """clamp(t v) with sum min(t |v|, room)^2 = eps^2. Entry i stops growing at t = room_i / |v_i|; each round solves for t with
    the entries known to have stopped, which only lets t grow, so the stopped set grows until it is right (exact, few rounds)."""
    square, wall = v.double().square(), room.double().square()
    t2 = eps * eps / square.sum(1, keepdim=True).clamp(min=1e-300)
    while True:
        stopped = t2 * square >= wall
        left = eps * eps - torch.where(stopped, wall, 0.0).sum(1, keepdim=True)
        moving = torch.where(stopped, 0.0, square).sum(1, keepdim=True)
        new = torch.where(moving > 0, left.clamp(min=0) / moving.clamp(min=1e-300), t2).maximum(t2)
        if bool((new <= t2 * (1 + 1e-15)).all()):
            return (v.sign() * (v.abs().double() * new.sqrt()).minimum(room.double())).to(v.dtype)
        t2 = new


def _shrink_l1(v: Tensor, room: Tensor, eps: Tensor | float) -> Tensor:
    """sign(v) clamp(|v| - s, 0, room) with sum = eps. The sum falls in s, linearly between the break points |v_i| and |v_i| - room_i,
    so a Newton step that stays on its segment is exact; bisection keeps it in a bracket, and takes over if it dawdles."""
    size = v.abs().double()
    wall = room.double().minimum(size)
    start = size - room.double()  # below s = start_i entry i sits at its wall
    low, high = size.new_zeros(len(size), 1), size.amax(1, keepdim=True)
    s, left = low, size
    for step in range(200):  # a handful of steps; after 16 every second one halves the bracket
        left = (size - s).clamp_(min=0).minimum(wall)
        over = left.sum(1, keepdim=True) - eps
        low, high = torch.where(over >= 0, s, low), torch.where(over < 0, s, high)
        found = (over.abs() <= 1e-13 * eps) | (high - low <= 1e-15 * high)
        if bool(found.all()):
            break
        newton = s + over / ((size > s) & (start <= s)).sum(1, keepdim=True)
        kept = (newton >= low) & (newton <= high) & (step < 16 or step % 2 == 0)
        s = torch.where(found, s, torch.where(kept, newton, (low + high) / 2))
    return (v.sign() * left).to(v.dtype)


def uniform_in_ball(shape: torch.Size, p: float, draws: Draws, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniformly distributed points of the unit L_p ball, (n, *d).

    p = 2: a normal vector on the sphere times U^(1/D). p = 1: exponentials with random signs over their sum, times U^(1/D).
    """
    inner, count = shape[1:], math.prod(shape[1:])
    if p == math.inf:
        return draws.uniform(*inner, low=-1.0, high=1.0, dtype=dtype)
    radius = draws.uniform(1, dtype=torch.float64) ** (1.0 / max(count, 1))
    v = draws.normal(count, dtype=dtype) if p == 2 else draws.uniform(count, dtype=dtype).log_() * draws.signs(count, dtype=dtype)
    return (v * (radius.squeeze(1) / length(v.double(), p)).to(dtype)[:, None]).reshape(shape)


def slack(p: float, count: int, scale: float, dtype: torch.dtype = torch.float32) -> float:
    """How far rounding alone may push the measured length of z - x past eps: 2 ulp of `scale` per entry, added up in L_p."""
    ulp = 2 * torch.finfo(dtype).eps * max(scale, 1e-30)
    return ulp * {math.inf: 1.0, 2: math.sqrt(count), 1: float(count)}[p]


def stretch(x: X, direction: X, eps: float, low: float = 0.0, high: float = 1.0) -> X:
    """The point x + t d, cut off at the walls of the domain, whose L2 distance from x is eps; t by bisection, from below.

    Where the walls leave no room (eps nears the distance to the corner that d points to) it is the nearest thing to it, and where d is
    0 it is x.

    Example:
        >>> stretch(torch.zeros(1, 2), torch.tensor([[3.0, -1.0]]), 0.5)         # only one entry has room
        tensor([[0.5000, 0.0000]])
    """
    start, along = x.flatten(1).double(), direction.flatten(1).double()
    along = along / along.square().sum(1, keepdim=True).sqrt().clamp(min=1e-30)

    def at(scale: Tensor) -> Tensor:
        return (start + scale[:, None] * along).clamp_(low, high)

    short = torch.full_like(start[:, 0], eps)  # walls only shorten
    long = short * 2
    for _ in range(20):
        long = torch.where((at(long) - start).square().sum(1) < eps**2, long * 2, long)
    for _ in range(40):
        middle = (short + long) / 2
        below = (at(middle) - start).square().sum(1) <= eps**2
        short, long = torch.where(below, middle, short), torch.where(below, long, middle)
    return at(short).to(x.dtype).reshape(x.shape)
