"""Images by file name with a WordNet id each: what ImageNet and its relatives share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brinell.core.dataset import Dataset, Lookup
from brinell.core.errors import DataError, SampleError
from brinell.core.place import place_of
from brinell.data.contents import body_of, digest_of
from brinell.data.folder import SUFFIXES
from brinell.data.images import Decoding, Images
from brinell.data.layout import joined, misfit

_NUMBER = re.compile(r"(\d{1,18})\.[^.]+\Z")


def dataset(
    source: Images, base: Path, names: Sequence[str], owners: Sequence[str], classes: Mapping[str, str], *, numbered: bool, note: str = ""
) -> Dataset:  # fmt: skip
    """The dataset of some image files.

    Arguments:
        source: the component that asks, with its decoding. base: the directory the names start from. names: (n,) files.
        owners: (n,) keys of `classes`, the class of each. classes: key to name, in the order of the labels.
        numbered: ids are the numbers at the end of the file names; else, or where two are equal, positions in `names`.

    Raises:
        DataError: there is no image; a file cannot be read; the first is damaged.
    """
    ids, told = np.arange(len(names)), ""
    if numbered:
        ends = [_NUMBER.search(name) for name in names]
        numbers = [int(end.group(1)) for end in ends if end]
        if len(set(numbers)) == len(names):
            ids = np.array(numbers, dtype=np.int64)
        else:
            told = "file names carry no distinct numbers: ids are positions, and only the same files pair with other sets"
    if not names:
        raise misfit(base, f"images ({', '.join(sorted(SUFFIXES))})", "none", "give the directory as it was unpacked")
    place_of = {key: k for k, key in enumerate(classes)}
    blobs = _Blobs(str(base), list(names), ids)
    (blob,), (place,) = blobs(ids[:1])
    decoder = source.decoder(blob, place)
    return Dataset(
        source=source.spec(), shape=decoder.shape, y=np.array([place_of[owner] for owner in owners]), ids=ids,
        classes=tuple(classes.values()), read=Decoding(blobs, decoder), content=digest_of((base / name for name in names), names),
        note=joined(note, told),
    )  # fmt: skip


class _Blobs:
    """Fetches encoded images by id, with their places."""

    def __init__(self, base: str, names: list[str], ids: np.ndarray) -> None:
        self.base, self.names, self.lookup = base, names, Lookup(ids)

    def __call__(self, ids: np.ndarray) -> tuple[list[bytes], list[str]]:
        blobs, places = [], []
        for position in self.lookup(ids):
            file = Path(self.base, self.names[position])
            try:
                blobs.append(body_of(file))
            except OSError as error:
                raise SampleError(f"{file} cannot be read: {error.strerror or error}; restore it, or load the set again") from error
            places.append(str(file))
        return blobs, places


def directories(base: Path, remedy: str) -> list[str]:
    """The sorted names of the class directories in a directory; those that begin with a dot are left out.

    Raises:
        DataError: there is none.
    """
    entries = base.iterdir() if base.is_dir() else ()
    found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise misfit(base, "one directory per class", "none" if base.is_dir() else "no directory", remedy)
    return found


def images(base: Path, inside: str = "") -> list[str]:
    """The sorted names, from `base` on, of the images that lie in a directory in it; none where there is no such directory."""
    place = base / inside
    found = place.iterdir() if place.is_dir() else ()
    names = (file.name for file in found if not file.name.startswith(".") and file.suffix.lower() in SUFFIXES)
    return sorted(f"{inside}/{name}" if inside else name for name in names)


def by_directory(source: Images, base: Path, classes: str, *, most: int, numbered: bool, remedy: str) -> Dataset:
    """The dataset of a directory that holds one directory per class.

    Arguments:
        classes: a file for `class_file`, or "": the directories that are there, sorted.
        most: how many classes the published set has. remedy: the advice where the layout is wrong.
        source, numbered: as for `dataset`.

    Raises:
        DataError: there are no or too many class directories, one is empty, or one is not in the file of classes.
    """
    found = directories(base, remedy)
    if len(found) > most:
        raise misfit(base, f"{most} class directories", str(len(found)), remedy)
    known = class_file(classes) if classes else {name: name for name in found}
    files: list[str] = []
    owners: list[str] = []
    for directory in found:
        if directory not in known:
            raise misfit(base, f"only the {len(known)} classes of {classes}", repr(directory), "name it there, or move it away")
        mine = images(base, directory)
        if not mine:
            raise misfit(base / directory, "images", "none", remedy)
        files += mine
        owners += [directory] * len(mine)
    note = "" if len(known) == most else f"{len(known)} classes, published are {most}"
    return dataset(source, base, files, owners, known, numbered=numbered, note=note)


def class_file(path: str) -> dict[str, str]:
    """Names of classes by WordNet id in the order of a text file: one id per line, and its name after a blank where there is one.

    `wnids.txt` of Tiny ImageNet and `LOC_synset_mapping.txt` of ImageNet have this form. Of a list of synonyms the first is taken.

    Raises:
        DataError: the file cannot be read, is empty, or names an id twice.
    """
    named: dict[str, str] = {}
    for number, line in enumerate(lines(place_of(path, DataError)), 1):
        key, _, name = line.partition("\t") if "\t" in line else line.partition(" ")
        if key in named:
            raise misfit(f"{path}, line {number}", "every class once", f"{key!r} again", "remove one of them")
        named[key] = name.split(",")[0].strip() or key
    if not named:
        raise misfit(
            path, "one class per line", "an empty file", "write one directory name per line, in the order of the network's outputs"
        )
    return named


def lines(file: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        DataError: it cannot be read, or is no UTF-8.
    """
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}; give the text file as it was published") from error
