"""The published sets of corrupted test images: CIFAR-10-C, Tiny ImageNet-C, ImageNet-C."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from pydantic import Field
from torch import Tensor

from brinell.core.dataset import Dataset, Source, whole_numbers
from brinell.core.errors import DataError
from brinell.data.cifar import CLASSES
from brinell.data.contents import digest_of
from brinell.data.images import Images
from brinell.data.layout import joined, listing, misfit, root, size_note
from brinell.data.listed import by_directory

_WORD = r"^[A-Za-z0-9_]+$"
CIFAR_REMEDY = "unpack CIFAR-10-C.tar (https://zenodo.org/records/2535967) and give the directory CIFAR-10-C"
TINY_REMEDY = (
    "take the corrected Tiny ImageNet-C (https://zenodo.org/records/8206060): the first upload, record 2536630, has a faulty `frost` with "
    "the 1000 classes of ImageNet"
)
IMAGENET_REMEDY = "unpack the archives of ImageNet-C (https://zenodo.org/records/2235448) into one directory of corruption/severity/class"


class Cifar10C(Source, name="cifar10_c"):
    """CIFAR-10-C: the 10,000 test images of CIFAR-10 under one published corruption at one severity.

    `<corruption>.npy` holds (50000, 32, 32, 3) uint8, the test set five times over, severity 1 first; `labels.npy` their labels. The
    file is mapped: only the rows asked for are read, and nothing is unpickled. Ids are positions in the test set, the same in
    every cell and in `cifar10(split=test)`, so cells pair sample by sample. CIFAR-10-C-bar has the same layout. No checksum is
    checked.

    Arguments:
        path: the directory `CIFAR-10-C`, or one that holds it. corruption: the name of a file in it. severity: 1 to 5.

    Raises:
        DataError: a file is missing, pickled, cut off, or of another shape; labels differ between severities or lie outside 0..9.

    References: Hendrycks & Dietterich (2019), "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR, https://arxiv.org/abs/1903.12261; Mintun, Kirillov & Xie (2021), https://arxiv.org/abs/2102.11273 (C-bar).

    Example:
        >>> Cifar10C(path="data/CIFAR-10-C", corruption="fog", severity=3).spec()
        "cifar10_c('data/CIFAR-10-C', corruption=fog, severity=3)"
    """

    positional = ("path",)
    path: str
    corruption: str = Field(pattern=_WORD)
    severity: int = Field(ge=1, le=5)

    def load(self) -> Dataset:
        base = root(self.path, ("labels.npy",), ("CIFAR-10-C",), CIFAR_REMEDY)
        file, labels = base / f"{self.corruption}.npy", base / "labels.npy"
        images, told = _array(file), whole_numbers(np.array(_array(labels)), f"{labels}: label")
        n = len(images) // 5
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3) or len(images) != 5 * n:
            raise misfit(file, "uint8 of shape (5 n, 32, 32, 3)", f"{images.dtype} of shape {images.shape}", CIFAR_REMEDY)
        if len(told) != len(images):
            raise misfit(labels, f"{len(images)} labels, one for each image of {file.name}", str(len(told)), CIFAR_REMEDY)
        blocks = told.reshape(5, n)
        if (blocks != blocks[0]).any():
            severity, row = np.argwhere(blocks != blocks[0])[0]
            fact = f"{blocks[severity, row]} at severity {severity + 1} and {blocks[0, row]} at severity 1 for image {row}"
            raise misfit(labels, "the same labels at every severity", fact, CIFAR_REMEDY)
        return Dataset(
            source=self.spec(), shape=(3, 32, 32), y=blocks[0], ids=np.arange(n), classes=CLASSES,
            read=_Rows(file, (self.severity - 1) * n), content=digest_of([file, labels], [str(self.severity)]),
            note=joined(size_note(n, 10_000), "no checksum was checked"),
        )  # fmt: skip


class _Rows:
    """Reads rows of one block of an array of images; what it has opened is not pickled."""

    def __init__(self, file: Path, start: int) -> None:
        self.file, self.start = file, start
        self.opened: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def __call__(self, ids: np.ndarray) -> Tensor:
        if self.opened is None:
            self.opened = _array(self.file)
        picked = np.ascontiguousarray(self.opened[ids + self.start].transpose(0, 3, 1, 2))
        return torch.from_numpy(picked).float().div_(255)


def _array(file: Path) -> np.ndarray:
    """The array of a .npy file, mapped."""
    if not file.is_file():
        raise misfit(file, "an array", f"no such file (there: {listing(file.parent, 30)})", CIFAR_REMEDY)
    try:
        return npy.open_memmap(file, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read as a plain array ({error}); {CIFAR_REMEDY}") from error


class _Cells(Images):
    """Corrupted images in corruption/severity/class directories."""

    positional = ("path",)
    path: str
    corruption: str = Field(pattern=_WORD)
    severity: int = Field(ge=1, le=5)
    classes: str = ""
    mode: Literal["auto", "grey", "rgb"] = "rgb"

    def _cell(self, inner: str, most: int, remedy: str) -> Dataset:
        base = root(self.path, (self.corruption,), (inner,), remedy) / self.corruption
        if not (base / str(self.severity)).is_dir():
            raise misfit(base, f"the directory {self.severity}", listing(base) if base.is_dir() else "no directory", remedy)
        return by_directory(self, base / str(self.severity), self.classes, most=most, numbered=True, remedy=remedy)


class TinyImageNetC(_Cells, name="tiny_imagenet_c"):
    """Tiny ImageNet-C: 10,000 corrupted images of 64x64 in 200 classes, one published corruption at one severity.

    Read are `<corruption>/<severity>/<class>/*.JPEG`. Ids are the numbers in the file names, the same in every cell, so cells pair
    with each other. *They do not pair with Tiny ImageNet*: the authors cut these images anew from ImageNet's validation images, so no
    id means the same picture in both; compare accuracies, never representations sample by sample.
    The first upload to Zenodo (2536630) has a `frost` of 1000 classes; it is refused, with the place of the corrected one.

    Arguments:
        path: the directory `Tiny-ImageNet-C`, or one that holds it. corruption: a directory in it. severity: 1 to 5.
        classes: a text file with one WordNet id per line, in the order of the network's outputs; "": the directories, sorted.
        resize, crop, interpolation, mode: see `brinell.data.images.Images`.

    Raises:
        DataError: a directory is missing, holds more than 200 classes, or no image. The message names it.

    References: Hendrycks & Dietterich (2019), https://arxiv.org/abs/1903.12261; the faulty `frost`:
        https://github.com/hendrycks/robustness/issues/60.

    Example:
        >>> TinyImageNetC(path="data/Tiny-ImageNet-C", corruption="frost", severity=1).spec()
        "tiny_imagenet_c('data/Tiny-ImageNet-C', corruption=frost, severity=1)"
    """

    def load(self) -> Dataset:
        return self._cell("Tiny-ImageNet-C", 200, TINY_REMEDY)


class ImageNetC(_Cells, name="imagenet_c"):
    """ImageNet-C: the 50,000 validation images of ImageNet under one published corruption at one severity, 224x224.

    Read are `<corruption>/<severity>/<class>/*.JPEG`. Ids are the numbers in the file names (293 of `ILSVRC2012_val_00000293.JPEG`),
    the same in every cell and in `imagenet(split=valid)`, so cells pair sample by sample. The images were resized, cropped,
    corrupted and saved as JPEG (quality 85) by the authors; a clean image of `imagenet` has not gone through that last step.

    Arguments:
        path: the directory of the corruptions. corruption: a directory in it. severity: 1 to 5.
        classes: a text file with one WordNet id per line, in the order of the network's outputs; "": the directories, sorted.
        resize, crop, interpolation, mode: see `brinell.data.images.Images`.

    Raises:
        DataError: a directory is missing, holds more than 1000 classes, or no image. The message names it.

    References: Hendrycks & Dietterich (2019), https://arxiv.org/abs/1903.12261.

    Example:
        >>> ImageNetC(path="data/ImageNet-C", corruption="jpeg_compression", severity=5).spec()
        "imagenet_c('data/ImageNet-C', corruption=jpeg_compression, severity=5)"
    """

    def load(self) -> Dataset:
        return self._cell("ImageNet-C", 1000, IMAGENET_REMEDY)
