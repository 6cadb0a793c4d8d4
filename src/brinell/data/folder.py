"""Labelled images in a directory per class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from brinell.core.dataset import Dataset
from brinell.core.errors import DataError, SampleError
from brinell.core.place import place_of
from brinell.data.contents import body_of, digest_of
from brinell.data.images import Decoding, Images

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
"""Endings of the files that count as images, in lower or upper case; others are left out and counted in the note."""


class Folder(Images, name="folder"):
    """Images in `path/<class name>/...`: the directory an image belongs to is its label.

    Every image below a class directory counts, however deep; names that begin with a dot do not. Classes are the
    directory names in the order of their code points, or those of `classes`. Ids number the images by class directory
    name and path within it, so they do not depend on the order of the classes. Images are opened and decoded when their
    rows are asked for; at loading, every byte is read once for the digest.

    Arguments:
        path: the directory of class directories.
        classes: a text file with one directory name per line, in the order of the network's outputs; "": sorted. Names are
            only compared with the directories that exist, never used as paths.
        resize, crop, interpolation, mode: see `brinell.data.images.Images`.

    Raises:
        DataError: there is no such directory, no class directory or no image in it; `classes` names an unknown directory, or
            one twice, or leaves one out; when rows are read: an image is damaged or of another size. The message names
            the file.

    Example:
        >>> Folder(path="pictures/val", resize=256, crop=224).spec()
        "folder('pictures/val', crop=224, resize=256)"
    """

    positional = ("path",)
    path: str
    classes: str = ""

    def load(self) -> Dataset:
        root = place_of(self.path, DataError)
        if not root.is_dir():
            raise DataError(f"{self.path!r} is no directory (seen from {Path.cwd()}); folder() reads path/<class name>/<image>")
        directories = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not directories:
            raise DataError(f"{root} holds no class directory; folder() reads path/<class name>/<image>")
        classes = _ordered(place_of(self.classes, DataError), directories, root) if self.classes else tuple(directories)
        names: list[str] = []
        owners: list[int] = []
        left_out = 0
        for directory in directories:
            found, others = _images(root, directory)
            if not found:
                raise DataError(f"{root / directory} holds no image ({', '.join(sorted(SUFFIXES))}); remove it or add images")
            names += found
            owners += [classes.index(directory)] * len(found)
            left_out += others
        blobs = _Blobs(str(root), names)
        (blob,), (place,) = blobs(np.zeros(1, dtype=np.int64))
        decoder = self.decoder(blob, place)
        return Dataset(
            source=self.spec(), shape=decoder.shape, y=np.array(owners), ids=np.arange(len(names)), classes=classes,
            read=Decoding(blobs, decoder), content=digest_of((root / name for name in names), names),
            note=f"{left_out} files with other endings left out" if left_out else "",
        )  # fmt: skip


class _Blobs:
    """Fetches encoded images by the number of their file, with their places."""

    def __init__(self, root: str, names: list[str]) -> None:
        self.root, self.names = root, names

    def __call__(self, ids: np.ndarray) -> tuple[list[bytes], list[str]]:
        places = [f"{Path(self.root, self.names[row])}, row {row}" for row in ids]
        blobs = []
        for row, place in zip(ids, places, strict=True):
            try:
                blobs.append(body_of(Path(self.root, self.names[row])))
            except OSError as error:
                raise SampleError(f"{place}, cannot be read: {error.strerror or error}; restore it, or load the set again") from error
        return blobs, places


def _images(root: Path, directory: str) -> tuple[list[str], int]:
    """Sorted paths relative to the root of the images below one class directory, and the number of other files."""
    found, others = [], 0
    for place, inner, files in os.walk(root / directory):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for file in files:
            if file.startswith("."):
                continue
            path = Path(place, file)
            if path.suffix.lower() in SUFFIXES:
                found.append(path.relative_to(root).as_posix())
            else:
                others += 1
    return sorted(found), others


def _ordered(file: Path, directories: list[str], root: Path) -> tuple[str, ...]:
    """The class names of a text file, each once, each a directory."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"class file {file} cannot be read: {error}; it holds one directory name per line, in UTF-8") from error
    names = [line.strip() for line in lines if line.strip()]
    known = set(directories)
    for number, name in enumerate(names):
        if name not in known:
            raise DataError(f"class file {file} names {name!r} (name {number + 1}), but {root} has no such class directory")
        if name in names[:number]:
            raise DataError(f"class file {file} names {name!r} twice")
    absent = sorted(known.difference(names))
    if absent:
        raise DataError(f"class file {file} leaves out {absent[0]!r} ({len(absent)} directories of {root}); name it or move it away")
    return tuple(names)
