"""Encoded images into arrays: the one place that decides what each kind of image file means."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.dataset import Source
from brinell.core.errors import DataError, SampleError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "PPM", "BMP", "GIF", "WEBP", "TIFF")
"""Formats that are read. Others are refused: some of Pillow's plugins start outside programs (EPS)."""

THREADED_BYTES = 12_000
"""Mean encoded size from which a shard is decoded by several threads; on smaller images the hand-over costs more than it gains."""


class Images(Source):
    """A source of encoded images; says how each becomes one array of the network's shape.

    - Grey stays one channel, colour becomes RGB. `mode="auto"` follows the first image: in a colour set a grey image is
      repeated over the three channels; in a grey set a colour image is an error. `mode="grey"` takes the luma
      (299 R + 587 G + 114 B) / 1000, `mode="rgb"` makes everything colour.
    - Palette, CMYK and YCbCr images are converted to RGB. An alpha channel is dropped, not blended with any
      background, as in common training pipelines.
    - 8-bit values are divided by 255, one-bit images are 0 and 1, 16-bit grey is divided by 65535 (in a colour set it is
      rounded to 8 bits first). Pillow reads 16-bit *colour* files with 8 bits per channel. Floating-point images are
      refused: their range is unknown (`npz` states it).
    - The EXIF orientation is applied. A file with several frames is refused; of a multi-picture JPEG (MPO) the first,
      primary picture is read.
    - An image of more pixels than Pillow's limit `PIL.Image.MAX_IMAGE_PIXELS` is refused before it is unpacked.

    Arguments:
        resize: length of the shorter side after resizing, the aspect kept (the longer side rounded down); None: as it is.
        crop: side of the square cut from the centre after resizing; None: all of it.
        interpolation: Pillow's filter for resizing: nearest, bilinear, bicubic, lanczos or box; all but nearest
            average over the area a new pixel covers (antialiasing).
        mode: auto, grey or rgb.
    """

    resize: int | None = Field(default=None, ge=1)
    crop: int | None = Field(default=None, ge=1)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box"] = "bilinear"
    mode: Literal["auto", "grey", "rgb"] = "auto"

    def decoder(self, first: bytes, place: str) -> Decoder:
        """The decoder of this source, its shape and mode taken from the first image."""
        framed = decode(first, place, mode=self.mode, resize=self.resize, crop=self.crop, interpolation=self.interpolation)
        height, width, channels = framed.shape
        mode = "grey" if channels == 1 else "rgb"
        return Decoder((channels, height, width), mode, self.mode == "auto", self.resize, self.crop, self.interpolation)


class Decoder:
    """Turns encoded images into one tensor.

    Arguments:
        shape: (channels, height, width) of every image. mode: grey or rgb. strict: a colour image in a grey set is an error.
        resize, crop, interpolation: see `Images`.
    """

    def __init__(
        self, shape: tuple[int, int, int], mode: str, strict: bool, resize: int | None, crop: int | None, interpolation: str
    ) -> None:  # fmt: skip
        self.shape, self.mode, self.strict = shape, mode, strict
        self.resize, self.crop, self.interpolation = resize, crop, interpolation

    def __call__(self, blobs: Sequence[bytes], places: Sequence[str]) -> Tensor:
        """(m, channels, height, width) float32 in [0, 1] from m encoded images.

        Raises:
            DataError: an image is unreadable or has another shape; the message names its place (the first one wrong).
        """
        threads = min(os.cpu_count() or 1, len(blobs), 8)
        if threads > 1 and sum(map(len, blobs)) >= THREADED_BYTES * len(blobs):
            with ThreadPoolExecutor(threads) as pool:
                arrays = list(pool.map(self._one, blobs, places))
        else:
            arrays = list(map(self._one, blobs, places))
        if not arrays:
            return torch.empty(0, *self.shape)
        if any(array.dtype != np.uint8 for array in arrays):
            arrays = [array if array.dtype == np.float32 else array / np.float32(255) for array in arrays]
        stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        exact = stacked.dtype == torch.uint8
        x = stacked.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return x.div_(255) if exact else x

    def _one(self, blob: bytes, place: str) -> np.ndarray:
        mode = "auto" if self.strict and self.mode == "grey" else self.mode
        array = decode(blob, place, mode=mode, resize=self.resize, crop=self.crop, interpolation=self.interpolation)
        channels, height, width = self.shape
        if array.shape[2] != channels:
            raise DataError(f"{place}: a colour image in a set whose first image is grey; use mode=rgb or mode=grey")
        if array.shape[:2] != (height, width):
            raise DataError(
                f"{place}: the image is {array.shape[1]} wide and {array.shape[0]} high, the first one {width} and {height}; "
                f"give resize= (shorter side) and crop= (centre square) to bring all to one size"
            )
        return array


class Decoding:
    """A reader: fetches encoded images with their places, and decodes them."""

    def __init__(self, blobs: Callable[[np.ndarray], tuple[list[bytes], list[str]]], decoder: Decoder) -> None:
        self.blobs, self.decoder = blobs, decoder

    def __call__(self, ids: np.ndarray) -> Tensor:
        return self.decoder(*self.blobs(ids))


def decode(
    data: bytes, place: str, *, mode: str = "auto", resize: int | None = None, crop: int | None = None, interpolation: str = "bilinear"
) -> np.ndarray:
    """One encoded image as an array, by the rules of `Images`.

    Arguments:
        data: the bytes of an image file. place: its file and row, for the message.

    Returns:
        (height, width, channels) with 1 or 3 channels: uint8, or float32 in [0, 1] for 16-bit images.

    Raises:
        SampleError: the bytes are no image of `FORMATS`, are damaged, too large, or hold several frames.

    Example:
        >>> decode(b"P5 2 1 255 " + bytes([0, 200]), "example").tolist()
        [[[0], [200]]]
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            fact = _refusal(image)
            if fact:
                raise SampleError(f"{place}: {fact}")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            framed = _frame(_converted(image, mode, place), resize, crop, interpolation, place)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleError(f"{place}: {_too_large(str(error))}") from error
    except Exception as error:  # decoders of untrusted bytes raise errors of many kinds
        known = f"; formats read: {', '.join(FORMATS)}" if isinstance(error, Image.UnidentifiedImageError) else ""
        raise SampleError(f"{place}: not a readable image ({len(data)} bytes; {_reason(error)}){known}. Replace or remove it") from error
    array = np.array(framed)
    if array.dtype == np.float32:
        array = array.clip(0, 65535) / np.float32(65535)  # bicubic and Lanczos overshoot
    return array if array.ndim == 3 else array[:, :, None]


def _reason(error: Exception) -> str:
    return "unknown format" if type(error).__name__ == "UnidentifiedImageError" else f"{type(error).__name__}: {error}"


def _too_large(fact: str) -> str:
    return f"too large to unpack ({fact}); shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"


def _refusal(image: Any) -> str:
    from PIL import Image

    pixels = image.size[0] * image.size[1]
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        return _too_large(f"{pixels} pixels, the limit is {Image.MAX_IMAGE_PIXELS}")
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        return f"the file holds {frames} frames and does not say which one is meant; save that one as an image of its own"
    if image.mode == "F":
        return "floating-point pixels have no known range; store the set as npz, with low= and high="
    return ""


def _converted(image: Image.Image, mode: str, place: str) -> Image.Image:
    """The image as L, RGB, or F holding 0..65535."""
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{place}: pixels from {values.min():g} to {values.max():g} exceed 16 bits; store the set as npz, with high=")
        if mode != "rgb":
            return Image.fromarray(values)
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    wanted = {"grey": "L", "rgb": "RGB"}.get(mode) or ("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _frame(image: Image.Image, resize: int | None, crop: int | None, interpolation: str, place: str) -> Image.Image:
    """Resized to a shorter side, then cut to the central square; odd margins leave the extra pixel as round-half-even says."""
    from PIL import Image

    width, height = image.size
    if resize is not None:
        short = min(width, height)
        width, height = width * resize // short, height * resize // short
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            raise DataError(f"{place}: {_too_large(f'resize={resize} makes it {width} wide and {height} high')}")
        image = image.resize((width, height), getattr(Image.Resampling, interpolation.upper()))
    if crop is None:
        return image
    if min(width, height) < crop:
        raise DataError(f"{place}: the image is {width} wide and {height} high, smaller than crop={crop}; give resize={crop} or more")
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))
