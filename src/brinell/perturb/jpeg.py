"""A JPEG round trip as batched tensor code, equal bit for bit to that of libjpeg-turbo (baseline, 4:2:0, accurate DCT).

Entropy coding loses nothing, so it is left out: what remains are the colour transform, the halving of the colour planes,
the 8x8 cosine transform in integers, the division by the quantisation table, and all of it backwards. Whole numbers are kept
in float64, which holds them exactly (they stay below 2^53): sums have no order, and CPU and GPU agree.

References: ITU-T Recommendation T.81 (1992), tables K.1 and K.2 (quantisation); ITU-T T.871 (2011) (YCbCr); Loeffler,
    Ligtenberg & Moschytz (1989), "Practical Fast 1-D DCT Algorithms with 11 Multiplications", ICASSP (the transform whose
    13-bit constants, multiplied out, are the matrix below); rounding and borders as in libjpeg (https://ijg.org).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
_DCT = (  # 2^13 sqrt(2) times the orthonormal 8-point transform, as the 13-bit constants of the fast algorithm add up
    (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
    (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
    (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
    (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
    (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
    (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
)
_TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))  # 2^16 times T.871, rounded
_CHUNK = 1 << 17  # values worked on at a time: the temporaries stay in the cache
_PILLOW = 64 * 64  # pixels from which Pillow is faster on a CPU, image by image; the bits are the same
_YCC_OFFSET = (32768, (128 << 16) + 32767, (128 << 16) + 32767)


def recompress(x: Tensor, quality: int) -> Tensor:
    """Images after being written as JPEG and read again, (n, c, h, w) in [0, 1], 8-bit.

    Three channels are RGB, coded as YCbCr 4:2:0; any other number is coded channel by channel as grey.

    Arguments:
        x: read as 8-bit, rounded. quality: 1 to 100, libjpeg's scale of the quantisation tables.

    Example:
        >>> x = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
        >>> (recompress(x, 100) - x).abs().max().item() < 0.01, (recompress(x, 5) - x).abs().max().item() > 0.05
        (True, True)
    """
    if x.device.type == "cpu" and x.shape[2] * x.shape[3] >= _PILLOW:
        return _by_pillow(x, quality)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    few = max(1, _CHUNK // x[0].numel())
    for part, images in zip(out.split(few), x.split(few), strict=True):
        grey = (images.double() * 255).round_()
        if x.shape[1] == 3:
            _recompress_rgb(grey, quality, part)
        else:
            torch.div(_coded(grey.flatten(0, 1), _table(_LUMA, quality, x)).reshape(grey.shape), 255, out=part)
    return out


def _by_pillow(x: Tensor, quality: int) -> Tensor:
    import io

    from PIL import Image

    out, half = torch.empty_like(x, memory_format=torch.contiguous_format), x.new_tensor(0.5)
    grey, level = torch.empty_like(out[0]), np.empty(x.shape[1:], np.uint8)
    for part, image in zip(out, x, strict=True):
        torch.add(half, image, alpha=255, out=grey)
        np.copyto(level, grey.numpy(), casting="unsafe")  # cuts the fraction off; torch is slower at it
        planes = [Image.fromarray(plane) for plane in level]
        pictures, read = [Image.merge("RGB", planes)] if len(planes) == 3 else planes, []
        for picture in pictures:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            back = Image.open(file, formats=("JPEG",))
            read += [back.tobytes("raw", band) for band in back.getbands()]
        for plane, values in zip(level, read, strict=True):
            plane[:] = np.frombuffer(values, np.uint8).reshape(plane.shape)
        torch.div(torch.from_numpy(level), 255, out=part)
    return out


def _recompress_rgb(grey: Tensor, quality: int, out: Tensor) -> None:
    n, _, height, width = grey.shape
    ycc = torch.matmul(grey.new_tensor(_TO_YCC), grey.flatten(2)).add_(grey.new_tensor(_YCC_OFFSET)[:, None])
    ycc = _floor_shift(ycc, 16).reshape(n, 3, height, width)
    luma = _coded(ycc[:, 0], _table(_LUMA, quality, grey))
    small = _coded(_halved(ycc[:, 1:].flatten(0, 1)), _table(_CHROMA, quality, grey))
    small = small[:, : (height + 1) // 2, : (width + 1) // 2]
    blue, red = (_doubled(small)[:, :height, :width] - 128).unflatten(0, (n, 2)).unbind(1)
    green = _floor_shift(-22554 * blue - 46802 * red + 32768, 16)
    for at, colour in enumerate((_floor_shift(91881 * red + 32768, 16), green, _floor_shift(116130 * blue + 32768, 16))):
        torch.div(colour.add_(luma).clamp_(0, 255), 255, out=out[:, at])


def _floor_shift(whole: Tensor, bits: int) -> Tensor:
    return whole.mul_(2.0**-bits).floor_()


def _table(base: tuple[tuple[int, ...], ...], quality: int, like: Tensor) -> Tensor:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    rows = [[min(max((value * scale + 50) // 100, 1), 255) for value in row] for row in base]
    return torch.tensor(rows, dtype=torch.float64, device=like.device)[:, :, None]


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Planes of grey levels, (m, h, w), transformed, quantised, and back; the last row and column fill up the last blocks."""
    m, height, width = planes.shape
    tall, wide = -(-height // 8), -(-width // 8)
    full = F.pad(planes[None], (0, wide * 8 - width, 0, tall * 8 - height), mode="replicate")[0] - 128
    blocks = full.reshape(m, tall, 8, wide, 8).permute(2, 4, 0, 1, 3).reshape(8, 8, -1)  # row, column, block
    dct = planes.new_tensor(_DCT)
    rows = _floor_shift(torch.matmul(dct, blocks).add_(2.0**10), 11)
    size = _floor_shift(torch.matmul(dct, rows.flatten(1)).add_(2.0**14), 15).reshape(rows.shape)  # 8 times the coefficient
    step = table * 8
    level = size.abs().add_(step / 2).div_(step).floor_().copysign_(size)
    columns = _floor_shift(torch.matmul(dct.T, level.mul_(table).flatten(1)).add_(2.0**10), 11).reshape(rows.shape)
    back = _floor_shift(torch.matmul(dct.T, columns).add_(2.0**17), 18).add_(128).clamp_(0, 255)
    full = back.reshape(8, 8, m, tall, wide).permute(2, 3, 0, 4, 1).reshape(m, tall * 8, wide * 8)
    return full[:, :height, :width]


def _halved(planes: Tensor) -> Tensor:
    """Means of 2x2 pixels, rounded up and down in turn from column to column; whole blocks wide, filled with the last column."""
    _, height, width = planes.shape
    full = F.pad(planes[None], (0, -width % 16, 0, height % 2), mode="replicate")[0]
    total = full[:, ::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, ::2] + full[:, 1::2, 1::2]
    bias = 1 + torch.arange(total.shape[2], device=planes.device) % 2
    return _floor_shift(total.add_(bias), 2)


def _doubled(planes: Tensor) -> Tensor:
    """Twice as many rows and columns, each value 9/16 its nearest, 3/16, 3/16 and 1/16 the next; narrow planes just repeat."""
    m, height, width = planes.shape
    if width <= 2:
        return planes.repeat_interleave(2, 1).repeat_interleave(2, 2)
    full = F.pad(planes[None], (0, 0, 1, 1), mode="replicate")[0]
    rows, near = planes.new_empty(m, 2 * height, width), 3 * planes
    torch.add(full[:, :-2], near, out=rows[:, ::2])
    torch.add(full[:, 2:], near, out=rows[:, 1::2])
    full = F.pad(rows[None], (1, 1, 0, 0), mode="replicate")[0]
    both, near = planes.new_empty(m, 2 * height, 2 * width), rows.mul_(3)
    torch.add(full[:, :, :-2], near, out=both[:, :, ::2]).add_(8)
    torch.add(full[:, :, 2:], near, out=both[:, :, 1::2]).add_(7)
    return _floor_shift(both, 4)
