"""The square attack: random squares, kept where they help, from the logits alone."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.ascent import Front, drafted, shared
from brinell.core.draws import Draws
from brinell.core.perturbation import Attack
from brinell.core.precision import drafting
from brinell.core.threat import Ball

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries, of 10,000, after which the squares' share of the image is halved."""
_AHEAD = 64  # queries whose random numbers are drawn at once
_SPARE = 4  # of so many queries one may be asked in vain


class Square(Attack, name="square", version=2):
    """Random search without gradients: does the network fall to squares of changed pixels, whatever its gradients say?

        z_{k+1} = z_k + square at a random place,  unless that lowers the loss (the margin);   z_k otherwise

    Linf: z_0 = x + eps times random signs, one per column and channel; a square adds +-2 eps per channel, then ball and domain are
    clipped to. L2 and L1: z_0 is a mosaic of bumps eta of random signs; a step empties one window and moves its budget, with
    what is left of eps, into another, where eta is added with a random sign per channel. The side is sqrt(p h w), with p halved
    from `share` on after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries. `rescale` counts these as shares
    of `queries`. Samples that are no images count as one row of pixels: a square is then an interval.

    On a linear network Linf comes near the exact margin; L2 and L1 spread their budget over windows of 3 by 3 pixels
    and more and do not come near an optimum of single pixels (`reach`).

    A square that changes nothing costs no pass. With `ahead`, where few samples are left, several queries of a sample share a pass,
    all from the same point; what follows the first accepted one is thrown away and asked again: the same result in less time, for at
    most a quarter more passes.

    Three in four queries are put to the network in bfloat16 where that gains (`core.precision`); `exact` forbids it.

    A sample leaves at its first success. All randomness is drawn per sample, so that no sample's result depends on another.

    References: Andriushchenko, Croce, Flammarion & Hein (2020), "Square Attack: a query-efficient black-box adversarial attack via
        random search", ECCV, arXiv 1912.00049, algorithms 1 to 3 and appendix B (p, its schedule); the L1 form and `rescale=False`
        are those of AutoAttack's code. Departures: places and signs differ between samples; ties are
        accepted, so that the search walks across the plateaus of quantised logits.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> z = br.parse("square(queries=50, threat=ball(eps=0.25))")(net, x, y, draws=br.derive(0, ids=[0]))
        >>> int(net(z).argmax())
        1
    """

    telling = ("queries", "threat")
    trial: ClassVar[dict[str, Any]] = {"queries": 200}
    threat: Ball = Ball()
    queries: int = Field(default=5000, ge=1)
    share: float = Field(default=0.8, gt=0, le=1)
    rescale: bool = True
    ahead: bool = False
    exact: bool = False

    @property
    def cost(self) -> tuple[int, int]:
        return self.queries + 1 + (self.queries // _SPARE if self.ahead else 0), 0

    @property
    def reach(self) -> float:
        """How many times the exact margin of a linear network it may need."""
        return 1.6 if self.threat.norm == math.inf else 8.0

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        if x[0].numel() == 0:
            return x.clone()
        with torch.no_grad():
            return self._search(net, x, y, net(x), draws)

    def side(self, query: int) -> float:
        """The share of the image that the squares of a query cover."""
        at = query / self.queries * 10_000 if self.rescale else query
        return self.share / 2 ** sum(int(at) > end for end in HALVINGS)

    def _search(self, net: Any, x: Tensor, y: Tensor, clean: Tensor, draws: Draws) -> Tensor:
        out, rows = x.clone(), torch.arange(len(x), device=x.device)
        shape = tuple(x.shape[1:]) if x.ndim == 4 else (1, 1, math.prod(x.shape[1:]))
        none, noise = torch.zeros_like(rows), torch.empty(len(x), _AHEAD, 5 + shape[0], device=x.device)
        front = Front(rows, x, y, clean, x, none, draws, none.double(), {"drawn": none, "noise": noise, "spare": none.double()})
        front = front.keep(~self.goal.reached(clean, y, clean))
        if not len(front):
            return out
        begin = _stripes if self.threat.norm == math.inf else _mosaic
        front.z = self._fitted(front.x, begin(front.x.reshape(-1, *shape), self.threat, front.draws))
        windows = [_window(self.side(query), shape, self.threat.norm) for query in range(self.queries)]
        draft = drafted(net, x, self.queries, self.exact)
        front.loss, arrived = self._judge(net, front.z, front.y, front.clean, low=draft > 0)
        while True:
            gone = arrived | (front.step == self.queries)
            if bool(gone.any()):
                out[front.rows[gone]] = front.z[gone]
                front = front.keep(~gone)
            if not len(front):
                return out
            if draft and bool((front.step == draft).all()):  # float32 from here on: the margins so far were those of the rounded network
                draft = 0
                front.loss, arrived = self._judge(net, front.z, front.y, front.clean, low=False)
            else:
                arrived = self._walk(net, front, windows[: draft or None], shape, low=draft > 0)

    def _walk(self, net: Any, front: Front, windows: list[tuple[int, int]], shape: tuple[int, ...], low: bool) -> Tensor:
        """Ask the next queries of each sample, all from its present point, and go on from the first accepted; (m,) bool: who arrived."""
        kept, count = front.carry, self._count(front, len(windows))
        due = (front.step // _AHEAD == kept["drawn"]).nonzero().squeeze(1)
        if len(due):
            draws = front.draws[due]
            kept["noise"][due], kept["drawn"][due] = draws.uniform(_AHEAD, 5 + shape[0]), kept["drawn"][due] + 1
            front.draws.put(due, draws)
        who = torch.arange(len(front), device=count.device).repeat_interleave(count)
        begin = count.cumsum(0) - count
        number = torch.arange(len(who), device=who.device) - begin[who]
        x, z, at = front.x[who], front.z[who], front.step[who] + number
        moved, sizes = torch.empty_like(z), [windows[query] for query in at.tolist()]
        for size in set(sizes):
            some = torch.tensor([own == size for own in sizes], device=who.device)
            before, now = (part[some].reshape(-1, *shape) for part in (x, z))
            moved[some] = self._fitted(x[some], self._move(before, now, size, kept["noise"][who[some], at[some] % _AHEAD]))
        value, arrived, accepted = front.loss[who], torch.zeros_like(who, dtype=torch.bool), torch.zeros_like(who, dtype=torch.bool)
        asked = (moved != z).flatten(1).any(1)  # who stays where it is knows the answer
        if bool(asked.any()):
            value[asked], arrived[asked] = self._judge(net, moved[asked], front.y[who[asked]], front.clean[who[asked]], low)
            accepted = asked & ((value >= front.loss[who]) | arrived)
        first = torch.full_like(count, _AHEAD).scatter_reduce(0, who[accepted], number[accepted], "amin")
        goes, found = first < _AHEAD, torch.zeros_like(count, dtype=torch.bool)
        to = (begin + first)[goes]
        front.z[goes], front.loss[goes], found[goes] = moved[to], value[to], arrived[to]
        used = torch.where(goes, first + 1, count)
        front.step = front.step + used
        kept["spare"] = kept["spare"] + used / _SPARE - (count - used)
        return found

    def _count(self, front: Front, end: int) -> Tensor:
        """(m,) how many queries each sample asks at once: no more than numbers are drawn, nor than it may throw away."""
        room = (end - front.step).minimum(_AHEAD - front.step % _AHEAD)
        most = shared(front.x) if self.ahead else 1
        return room.minimum((1 + front.carry["spare"]).long().clamp(max=most))

    def _move(self, x: Tensor, z: Tensor, size: tuple[int, int], noise: Tensor) -> Tensor:
        return (_shift if self.threat.norm == math.inf else _transfer)(x, z, self.threat, size, noise)

    def _fitted(self, x: Tensor, z: Tensor) -> Tensor:
        z = z.reshape(x.shape)
        if self.threat.norm != 2:
            return self.threat.project(x, z)
        v = z - x  # all of the budget is used, then the walls cut
        size = norms.length(v, 2).clamp(min=1e-12)
        return self.threat.project(x, x + norms.scaled(v, self.threat.eps / size))

    def _judge(self, net: Any, z: Tensor, y: Tensor, clean: Tensor, low: bool) -> tuple[Tensor, Tensor]:
        """The margins, and which points reach the goal; what bfloat16 (`low`) sees arrive is looked at again in float32."""
        with drafting(z, low):
            logits = net(z).double()
        loss, arrived = self.goal.loss(logits, y, clean.double(), "margin"), self.goal.reached(logits, y, clean)
        if low and bool(arrived.any()):
            arrived = arrived.masked_scatter(arrived, self.goal.reached(net(z[arrived]), y[arrived], clean[arrived]))
        return torch.nan_to_num(loss, nan=-torch.inf), arrived


def _window(share: float, shape: tuple[int, ...], norm: float) -> tuple[int, int]:
    """Height and width of a window that covers this share of an image; in L2 and L1 odd and at least 3, where it fits."""
    height, width = shape[-2:]

    def whole(side: float) -> int:
        return max(round(side), 1) if norm == math.inf else max(round(side), 3) // 2 * 2 + 1

    tall = min(whole(math.sqrt(share * height * width)), height)
    return tall, min(whole(math.sqrt(share * height * width) if tall < height else share * width), width)


def _place(u: Tensor, room: int) -> Tensor:
    """(m,) whole numbers 0..room from uniforms."""
    return (u * (room + 1)).long().clamp(max=room)


def _mask(u: Tensor, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(m, h, 1) and (m, 1, w) bool: the rows and columns of a window at a random place per sample; u (m, 2)."""
    found = []
    for axis in (0, 1):
        at = _place(u[:, axis], shape[-2 + axis] - size[axis])[:, None]
        line = torch.arange(shape[-2 + axis], device=u.device)
        found.append((line >= at) & (line < at + size[axis]))
    return found[0][:, :, None], found[1][:, None, :]


def _stripes(x: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return x + ball.eps * draws.signs(x.shape[1], 1, x.shape[3], dtype=x.dtype)


def _shift(x: Tensor, z: Tensor, ball: Ball, size: tuple[int, int], noise: Tensor) -> Tensor:
    tall, wide = _mask(noise[:, :2], tuple(z.shape), size)
    signs = torch.where(noise[:, 5:, None, None] < 0.5, -2 * ball.eps, 2 * ball.eps).to(z.dtype)
    return z + signs * (tall & wide)[:, None]


def _mosaic(x: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """A grid of bumps, five each way where that fits."""
    height, width = x.shape[-2:]
    tall, wide = max(height // 5, 1), max(width // 5, 1)
    down, right = height // tall, width // wide
    signs = draws.signs(x.shape[1], down, right, dtype=x.dtype)
    flip = draws.uniform(down * right).reshape(-1, 1, down, right, 1, 1) < 0.5
    bumps = (bump(tall, wide, ball.norm, turned).to(x) for turned in (False, True))
    tile = torch.where(flip, *(part.reshape(1, 1, 1, 1, tall, wide) for part in bumps))
    tiles = (signs[..., None, None] * tile).permute(0, 1, 2, 4, 3, 5).reshape(len(x), x.shape[1], down * tall, right * wide)
    v = torch.zeros_like(x)
    top, left = (height - down * tall) // 2, (width - right * wide) // 2
    v[:, :, top : top + down * tall, left : left + right * wide] = tiles
    return x + v


def _transfer(x: Tensor, z: Tensor, ball: Ball, size: tuple[int, int], noise: Tensor) -> Tensor:
    """Empty one window and give its budget to another, where a bump is added to what is there."""
    p, v, channels = ball.norm, z - x, x.shape[1]
    tall, wide = size
    if tall * wide < 2:  # windows of one pixel have no shape; the sign alone is drawn
        return _shift(x, z, ball.replace(eps=ball.eps / 2), size, noise)
    gain, drain = ((rows & columns)[:, None] for rows, columns in (_mask(noise[:, at : at + 2], tuple(z.shape), size) for at in (0, 2)))
    there = v[gain.expand_as(v)].reshape(len(v), channels, tall, wide)

    def size_of(part: Tensor) -> Tensor:
        return torch.linalg.vector_norm(part.flatten(2), ord=p, dim=2)[..., None, None]

    turned = noise[:, 4, None, None, None] < 0.5
    shapes = (bump(tall, wide, p, side).to(x).expand(len(x), 1, tall, wide) for side in (True, False))
    new = torch.where(turned, *shapes) * torch.where(noise[:, 5:, None, None] < 0.5, -1.0, 1.0).to(x.dtype)
    new = new + there / size_of(there).clamp(min=1e-12)
    whole = torch.linalg.vector_norm(v.flatten(1), ord=p, dim=1)[:, None, None, None]
    left = (ball.eps**p - whole**p).clamp(min=0) / channels + size_of(v * (gain | drain)) ** p
    new = new / size_of(new).clamp(min=1e-12) * (left ** (1 / p) if p == 2 else left * channels)
    return x + (v * ~drain).masked_scatter(gain.expand_as(v), new)


def bump(tall: int, wide: int, norm: float, turned: bool) -> Tensor:
    """(tall, wide) float32 of norm 1: two nested-rectangle hills, one up, one down, halves of the window; `turned` splits columns.

    Ring k of a hill, counted from outside, is the sum of the first terms of 1 / j^2 (L2) or 1 / j^4 (L1), j = 1, 2, ...
    """
    if turned:
        return bump(wide, tall, norm, False).T
    half = tall // 2
    v = torch.cat((_hill(half, wide, norm), -_hill(tall - half, wide, norm)))
    return v / torch.linalg.vector_norm(v, ord=norm).clamp(min=1e-12)


def _hill(tall: int, wide: int, norm: float) -> Tensor:
    v, top, left = torch.zeros(tall, wide), tall // 2, wide // 2
    for j in range(max(tall // 2, wide // 2) + 1):
        v[max(top - j, 0) : top + j + 1, max(left - j, 0) : left + j + 1] += 1.0 / (j + 1) ** (2 if norm == 2 else 4)
    return v / torch.linalg.vector_norm(v, ord=norm).clamp(min=1e-12)
