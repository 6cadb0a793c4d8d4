"""Randomness as an argument: a counter-based stream with one independent row per sample.

Row i of every draw depends on (seed, path, id of sample i, how many values that row has drawn before) and on nothing else:
not on the batch, its order, the device, the shard, or which batch mates have already left. No global seed is read or set.

Value number c of a row is a 64-bit hash of the row's two key words (k1, k2):

    z = k1 + c * 0x9E3779B97F4A7C15;  z = (z ^ z>>>30) * 0xBF58476D1CE4E5B9;  z ^= k2
    z = (z ^ z>>>27) * 0x94D049BB133111EB;  z = z ^ z>>>31                              (all modulo 2^64)

that is SplitMix64 with a second key word mixed in, so that the streams of different rows are different functions, not
shifted windows of one sequence. Its low rows of bits are as good as its high ones: a word gives two float32 uniforms.

References: Steele, Lea & Flood (2014), "Fast Splittable Pseudorandom Number Generators", OOPSLA, doi:10.1145/2660193.2660195;
    Salmon et al. (2011), "Parallel Random Numbers: As Easy as 1, 2, 3", SC11 (the counter-based idea).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


_GAMMA, _M1, _M2 = _signed(0x9E3779B97F4A7C15), _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_CHUNK = 1 << 16  # words hashed at a time: the temporaries stay in the cache


def derive(seed: int, *path: str | int, ids: Iterable[int] | Tensor, device: torch.device | str = "cpu") -> Draws:
    """The stream of a seed and a path, one row per sample id.

    Arguments:
        seed: any integer.
        path: texts and integers that name the use (`"pgd(...)"`, epoch, restart); different paths are independent.
        ids: n integer sample ids, each in the range of a signed 64-bit integer.

    Example:
        >>> first = derive(0, "noise", ids=[3, 5]).uniform(4)
        >>> again = derive(0, "noise", ids=[5]).uniform(4)      # sample 5 alone: the same numbers
        >>> bool((first[1] == again[0]).all())
        True
    """
    text = repr((int(seed), *((type(part).__name__, str(part)) for part in path)))
    digest = hashlib.blake2b(text.encode(), digest_size=32).digest()
    a, b, c, d = (int.from_bytes(digest[8 * i : 8 * i + 8], "little", signed=True) for i in range(4))
    if not isinstance(ids, Tensor):
        ids = torch.from_numpy(np.asarray(ids if isinstance(ids, np.ndarray | Sequence) else list(ids), dtype=np.int64))
    rows = ids.to(device=device, dtype=torch.int64).reshape(-1)
    zero = torch.zeros_like(rows)
    return Draws(_hash(rows, torch.full_like(rows, a), torch.full_like(rows, b)),
                 _hash(rows, torch.full_like(rows, c), torch.full_like(rows, d)), zero)  # fmt: skip


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts signed words arithmetically


def _mix_(z: Tensor, k2: Tensor) -> Tensor:
    t = z >> 30
    z.bitwise_xor_(t.bitwise_and_((1 << 34) - 1)).mul_(_M1).bitwise_xor_(k2)
    torch.bitwise_right_shift(z, 27, out=t)
    z.bitwise_xor_(t.bitwise_and_((1 << 37) - 1)).mul_(_M2)
    torch.bitwise_right_shift(z, 31, out=t)
    return z.bitwise_xor_(t.bitwise_and_((1 << 33) - 1))


def _hash(counter: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
    return _mix_(k1 + counter * _GAMMA, k2)


class Draws:
    """Random numbers for n samples; every method returns shape (n, *shape) and moves each row's counter on.

    Arguments:
        k1, k2: (n,) int64 key words of the rows. counter: (n,) int64, the 64-bit words each row has used.
    """

    def __init__(self, k1: Tensor, k2: Tensor, counter: Tensor) -> None:
        self.k1, self.k2, self.counter = k1, k2, counter

    def __len__(self) -> int:
        return len(self.k1)

    @property
    def device(self) -> torch.device:
        return self.k1.device

    def __getitem__(self, rows: Any) -> Draws:
        """The stream of some rows, continuing where each of them stands; `rows` is a mask, a slice or indices."""
        if isinstance(rows, int):
            rows = slice(rows, rows + 1)
        return Draws(self.k1[rows], self.k2[rows], self.counter[rows].clone())

    def put(self, rows: Tensor, part: Draws) -> None:
        """Move the counters of some rows to where `part`, taken by `draws[rows]`, now stands."""
        self.counter[rows] = part.counter

    def fork(self) -> Draws:
        """A copy that advances on its own."""
        return self[:]

    def at(self, *path: str | int) -> Draws:
        """An independent stream for a part of the work, the same whatever this one has drawn before."""
        twin = derive(0, *path, ids=self.k1, device=self.device)
        return Draws(twin.k1 ^ self.k2, twin.k2, torch.zeros_like(self.counter))

    def to(self, device: torch.device | str) -> Draws:
        return Draws(self.k1.to(device), self.k2.to(device), self.counter.to(device))

    def words(self, count: int) -> Tensor:
        """(n, count) uniformly distributed signed 64-bit words."""
        out = torch.empty(len(self), count, dtype=torch.int64, device=self.device)
        for rows, columns in self._blocks(count):
            out[rows, columns] = self._block(rows, columns)
        self.counter += count
        return out

    def _blocks(self, count: int) -> Iterable[tuple[slice, slice]]:
        wide = min(count, _CHUNK)
        tall = max(1, _CHUNK // max(wide, 1))
        for top in range(0, len(self), tall):
            for left in range(0, count, max(wide, 1)):
                yield slice(top, min(top + tall, len(self))), slice(left, min(left + wide, count))

    def _block(self, rows: slice, columns: slice) -> Tensor:
        steps = torch.arange(columns.start, columns.stop, dtype=torch.int64, device=self.device)
        z = (self.k1[rows] + self.counter[rows] * _GAMMA)[:, None] + steps * _GAMMA
        return _mix_(z, self.k2[rows][:, None])

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform on the open interval (0, 1), (k + 1/2) / 2^23 in float32, (k + 1/2) / 2^52 in float64, moved to (low, high), whose
        ends rounding may reach."""
        count = math.prod(shape)
        out = torch.empty(len(self), count, dtype=dtype, device=self.device)
        if dtype == torch.float64:
            for rows, columns in self._blocks(count):
                out[rows, columns] = (_shift(self._block(rows, columns), 12).double() + 0.5) * 2.0**-52
            self.counter += count
        else:
            half = (count + 1) // 2  # the high 23 bits give the first half of the values, the next 23 the second half
            for rows, columns in self._blocks(half):
                word = self._block(rows, columns)
                out[rows, columns] = _shift(word, 41)
                second = slice(half + columns.start, min(half + columns.stop, count))
                out[rows, second] = _shift(word << 23, 41)[:, : second.stop - second.start]
            out.add_(0.5).mul_(2.0**-23)
            self.counter += half
        if (low, high) != (0.0, 1.0):
            out.mul_(high - low).add_(low)
        return out.reshape(len(self), *shape)

    def normal(self, *shape: int, std: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal times `std` (Box and Muller's two from two); beyond 5.7 std in float32 no value occurs."""
        count = math.prod(shape)
        half = (count + 1) // 2
        u = self.uniform(2 * half, dtype=dtype)
        radius = u[:, :half].log_().mul_(-2.0).sqrt_().mul_(std)
        angle = u[:, half:].mul_(2.0 * math.pi)
        out = torch.cat((radius * angle.cos(), radius * angle.sin_()), 1)
        return out[:, :count].reshape(len(self), *shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers low, ..., high - 1, int64, equally likely to 2^-32 * (high - low).

        Raises:
            ValueError: unless 0 < high - low <= 2^31.
        """
        if not 0 < high - low <= 1 << 31:
            raise ValueError(f"integers({low}, {high}): the range must hold between 1 and 2^31 numbers")
        word = _shift(self.words(math.prod(shape)), 32)
        return (((word * (high - low)) >> 32) + low).reshape(len(self), *shape)

    def signs(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """-1 or +1, equally likely; 64 values per word."""
        count = math.prod(shape)
        word = self.words((count + 63) // 64)
        bits = (word[:, :, None] >> torch.arange(64, device=self.device)) & 1
        return (bits.reshape(len(self), -1)[:, :count] * 2 - 1).to(dtype).reshape(len(self), *shape)

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson numbers with mean `rate`, (n, *shape) in, the same shape and dtype out; by inversion, one uniform each.

        Exact to the 2^-52 of the uniforms: k is the smallest integer whose distribution function
        F(k) = Q(k + 1, rate) (regularised incomplete gamma) is at least u; a normal guess is corrected by walking.

        Raises:
            ValueError: a rate is negative or not finite, or the number of rows differs.
        """
        if len(rate) != len(self) or not bool(torch.isfinite(rate).all()) or bool((rate < 0).any()):
            raise ValueError(f"poisson needs {len(self)} rows of finite rates >= 0; got shape {tuple(rate.shape)}")
        u = self.uniform(rate[0].numel() if len(rate) else 0, dtype=torch.float64).reshape(-1)
        mean = rate.detach().double().reshape(-1)
        z = torch.special.ndtri(u)
        k = (mean + mean.sqrt() * z + (z * z - 1) / 6).floor().clamp_(min=0)
        cdf = torch.special.gammaincc(k + 1, mean)
        pmf = (torch.xlogy(k, mean) - mean - torch.lgamma(k + 1)).exp()
        down, up = cdf - pmf >= u, cdf < u
        while bool(down.any()):
            cdf = torch.where(down, cdf - pmf, cdf)
            pmf = torch.where(down, pmf * k / mean.clamp(min=1e-300), pmf)
            k = torch.where(down, k - 1, k)
            down = down & (k > 0) & (cdf - pmf >= u)
        while bool(up.any()):
            k = torch.where(up, k + 1, k)
            pmf = torch.where(up, pmf * mean / k.clamp(min=1), pmf)
            cdf = torch.where(up, cdf + pmf, cdf)
            up = up & (cdf < u) & (pmf > 0)
        return k.where(mean > 0, 0.0).to(rate.dtype).reshape(rate.shape)
