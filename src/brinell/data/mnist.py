"""MNIST in the IDX files it is published in."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from brinell.core.dataset import Dataset, Source, class_names
from brinell.core.errors import DataError
from brinell.data.contents import digest_of
from brinell.data.layout import joined, misfit, root, size_note

PREFIXES = {"train": "train", "test": "t10k"}
SIZES = {"train": 60_000, "test": 10_000}
ENDINGS = ("-idx{axes}-ubyte", ".idx{axes}-ubyte", "-idx{axes}-ubyte.gz", ".idx{axes}-ubyte.gz")
REMEDY = "get the four files train-images-idx3-ubyte.gz .. t10k-labels-idx1-ubyte.gz of MNIST, packed or unpacked, and give their directory"
_MOST_BYTES = 1 << 31


class Mnist(Source, name="mnist"):
    """MNIST, or any set in its form: 28x28 grey images in two IDX files per split, packed by gzip or not.

    Files are `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, for the test split `t10k-...`, with or without `.gz`, with
    `-` or `.` before `idx`; those that lie there unpacked are taken first. An IDX file starts with two zero bytes, a type
    (8 for bytes), the number of axes and the big-endian length of each; its size must be exactly what that says. Fashion-MNIST,
    KMNIST and EMNIST have the same form and another meaning of the classes, which are called by their number here.

    Images are uint8 divided by 255, one channel; unpacked files are mapped and only the rows asked for are read. Ids are
    positions in the file. No checksum is checked: the authors publish none for these files.

    Arguments:
        path: the directory of the files (or one that holds them in `MNIST/raw` or `raw`). split: train or test.

    Raises:
        DataError: a file is missing, has another magic number or size, or is no gzip; images and labels differ in number. The
            message names the file.

    References: LeCun, Bottou, Bengio & Haffner (1998), "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE
        86:2278, doi:10.1109/5.726791; the IDX form: http://yann.lecun.com/exdb/mnist.

    Example:
        >>> Mnist(path="data/mnist", split="train").spec()
        "mnist('data/mnist', split=train)"
    """

    positional = ("path",)
    telling = ("split",)
    path: str
    split: Literal["train", "test"] = "test"

    def load(self) -> Dataset:
        prefix = PREFIXES[self.split]
        names = {axes: tuple(f"{prefix}-{what}{end.format(axes=axes)}" for end in ENDINGS) for axes, what in ((3, "images"), (1, "labels"))}
        place = root(self.path, names[3], ("MNIST/raw", "raw"), REMEDY)
        images, labels = _first(place, names[3]), _first(place, names[1])
        y = np.array(read_idx(labels, 1), dtype=np.int64)
        read = _Pixels(images)
        n, height, width = read.open().shape
        if n != len(y):
            raise misfit(labels, f"{n} labels, one for each image of {images.name}", str(len(y)), REMEDY)
        return Dataset(
            source=self.spec(), shape=(1, height, width), y=y, ids=np.arange(n),
            classes=class_names(max(10, int(y.max(initial=0)) + 1), y, self.spec()), read=read, content=digest_of([images, labels]),
            note=joined(size_note(n, SIZES[self.split]), "no checksum was checked: none is published for these files"),
        )  # fmt: skip


class _Pixels:
    """Reads rows of an IDX file of images; what it has opened is not pickled."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.opened: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def open(self) -> np.ndarray:
        if self.opened is None:
            self.opened = read_idx(self.file, 3)
        return self.opened

    def __call__(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(self.open()[ids])).unsqueeze(1).float().div_(255)


def _first(place: Path, names: tuple[str, ...]) -> Path:
    found = next((place / name for name in names if (place / name).is_file()), None)
    if found is None:
        raise misfit(place, f"{names[0]} or {names[2]}", "neither", REMEDY)
    return found


def read_idx(file: Path, axes: int) -> np.ndarray:
    """The array of bytes in an IDX file: mapped, or unpacked into memory from `.gz`.

    Arguments:
        file: its path. axes: how many axes it must have.

    Raises:
        DataError: the magic number or the size is wrong, or the packing is damaged.
    """
    packed, start = file.suffix == ".gz", 4 + 4 * axes
    try:
        with gzip.open(file) if packed else file.open("rb") as stream:
            head = stream.read(start)
            magic = bytes((0, 0, 8, axes))
            if head[:4] != magic or len(head) < start:
                raise misfit(file, f"the magic number {magic.hex()} and {axes} lengths", f"{head[:4].hex()} in {len(head)} bytes", REMEDY)
            sizes = tuple(int.from_bytes(head[k : k + 4], "big") for k in range(4, start, 4))
            count = math.prod(sizes)
            if packed:
                body = stream.read(min(count, _MOST_BYTES) + 1)  # never more than the header promises, whatever the packing holds
                found, more = len(body), " or more" if len(body) > count else ""
            else:
                body, found, more = b"", file.stat().st_size - start, ""
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}); {REMEDY}") from error
    if found != count or not count:
        raise misfit(file, f"{count:,} bytes after its header ({' x '.join(map(str, sizes))})", f"{found:,}{more}", REMEDY)
    if packed:
        return np.frombuffer(body, dtype=np.uint8).reshape(sizes)
    return np.memmap(file, dtype=np.uint8, mode="r", offset=start, shape=sizes)
