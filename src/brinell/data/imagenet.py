"""ImageNet and Tiny ImageNet in the directories they are published in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from brinell.core.dataset import Dataset
from brinell.core.errors import DataError
from brinell.core.place import place_of
from brinell.data.images import Images
from brinell.data.layout import joined, listing, misfit, root
from brinell.data.listed import by_directory, class_file, dataset, images, lines

_WNID = re.compile(r"n\d{8}\Z")
TINY_REMEDY = "unpack tiny-imagenet-200.zip (http://cs231n.stanford.edu/tiny-imagenet-200.zip) and give the directory tiny-imagenet-200"
IMAGENET_REMEDY = "give the directory that holds train/<class>/*.JPEG and val/<class>/*.JPEG (a flat val/ needs labels=FILE)"


class TinyImageNet(Images, name="tiny_imagenet"):
    """Tiny ImageNet: 200 classes, 500 training and 50 validation images of 64x64 each; grey ones become RGB.

    Read are `train/<class>/images/*.JPEG`, and `val/images/*.JPEG` with `val/val_annotations.txt` (file name, class, and a box that is
    not used, separated by tabs). Labels number the classes in the order of their WordNet ids, as networks trained from class
    directories have them; `classes=wnids.txt` takes another order. Their names are the first synonyms of `words.txt`, else the
    ids. Ids of samples are positions among the training images (class by class, by name), or the numbers of the
    validation images (`val_17.JPEG`: 17). No checksum is checked: none is published.

    Arguments:
        path: the directory `tiny-imagenet-200`, or one that holds it. split: train or valid (test has no labels).
        classes: a text file with one WordNet id per line, in the order of the network's outputs.
        resize, crop, interpolation, mode: see `brinell.data.images.Images`.

    Raises:
        DataError: a file is missing or not as published; an annotation names no image or no class of `wnids.txt`. The message
            names the file.

    References: Y. Le, X. Yang (2015), "Tiny ImageNet Visual Recognition Challenge", CS 231N, Stanford.

    Example:
        >>> TinyImageNet(path="data/tiny-imagenet-200").spec()
        "tiny_imagenet('data/tiny-imagenet-200', split=valid)"
    """

    positional = ("path",)
    telling = ("split",)
    path: str
    split: Literal["train", "valid"] = "valid"
    classes: str = ""
    mode: Literal["auto", "grey", "rgb"] = "rgb"

    def load(self) -> Dataset:
        base = root(self.path, ("wnids.txt",), ("tiny-imagenet-200",), TINY_REMEDY)
        known, words = class_file(str(base / "wnids.txt")), base / "words.txt"
        named = class_file(str(words)) if words.exists() else {}
        order = class_file(self.classes) if self.classes else sorted(known)
        for key in order:
            if key not in known:
                raise misfit(self.classes, f"classes of {base / 'wnids.txt'}", repr(key), "remove it")
        names = {key: named.get(key, key) for key in order}
        note = joined(
            "" if len(names) == 200 else f"{len(names)} classes, published are 200",
            "" if named else f"{words} is missing: classes are called by their WordNet ids",
        )
        if self.split == "train":
            return self._train(base / "train", names, note)
        return self._valid(base / "val", names, note)

    def _train(self, base: Path, names: dict[str, str], note: str) -> Dataset:
        files, owners = [], []
        for key in sorted(names):
            inside = f"{key}/images"
            mine = images(base, inside)
            if not mine:
                raise misfit(base / inside, "images", "none", TINY_REMEDY)
            files += mine
            owners += [key] * len(mine)
        return dataset(self, base, files, owners, names, numbered=False, note=note)

    def _valid(self, base: Path, names: dict[str, str], note: str) -> Dataset:
        annotations = base / "val_annotations.txt"
        present = set(images(base / "images"))
        if not present:
            raise misfit(base / "images", "images", "none", TINY_REMEDY)
        owner_of: dict[str, str] = {}
        for number, line in enumerate(lines(annotations), 1):
            name, owner, *_ = [*line.split("\t"), ""]
            place = f"{annotations}, line {number}"
            if name not in present:
                raise misfit(place, f"an image of {base / 'images'}", repr(name)[:80], TINY_REMEDY)
            if owner not in names:
                raise misfit(place, f"one of the {len(names)} classes", repr(owner)[:80], "give all classes, as wnids.txt does")
            if name in owner_of:
                raise misfit(place, "every image once", f"{name!r} again", TINY_REMEDY)
            owner_of[name] = owner
        left = len(present) - len(owner_of)
        note = joined(note, f"{left} images without annotation left out" if left else "")
        return dataset(self, base / "images", list(owner_of), list(owner_of.values()), names, numbered=True, note=note)


class ImageNet(Images, name="imagenet"):
    """ImageNet (ILSVRC 2012): 1000 classes; the shorter side is made 256 pixels long and the central 224x224 are kept.

    Read are `train/<class>/*.JPEG` and `val/<class>/*.JPEG`; or all validation images in `val/` itself with a file of labels. Labels
    number the classes in the order of their WordNet ids, as published networks have them; `classes=` takes another order or
    adds classes without images, so that a part of the set keeps the labels of the whole. Ids are positions among the training images,
    or the numbers of the validation images (`ILSVRC2012_val_00000293.JPEG`: 293), which are also those of `imagenet_c`.
    Every byte is read once at loading, for the digest: 7 GB for the validation images. No checksum is checked.

    Arguments:
        path: the directory of `train` and `val`. split: train or valid.
        classes: a text file with one WordNet id per line (and a name, as in `LOC_synset_mapping.txt`), in the order of the
            network's outputs; "": the class directories, sorted.
        labels: for a flat `val/`: a text file with one line `IMAGE WNID` per image, or one WordNet id per line for the images in
            the order of their names. Class numbers are refused: those of the challenge follow another order.
        resize, crop, interpolation, mode: see `brinell.data.images.Images`.

    Raises:
        DataError: a directory or file is missing or not as published. The message names it.

    References: Russakovsky et al. (2015), "ImageNet Large Scale Visual Recognition Challenge", IJCV 115:211, arXiv 1409.0575.

    Example:
        >>> ImageNet(path="data/imagenet", interpolation="bicubic").spec()
        "imagenet('data/imagenet', interpolation=bicubic, split=valid)"
    """

    positional = ("path",)
    telling = ("split",)
    path: str
    split: Literal["train", "valid"] = "valid"
    classes: str = ""
    labels: str = ""
    resize: int | None = 256
    crop: int | None = 224
    mode: Literal["auto", "grey", "rgb"] = "rgb"

    def load(self) -> Dataset:
        part = "train" if self.split == "train" else "val"
        base = root(self.path, (part,), ("ILSVRC/Data/CLS-LOC",), IMAGENET_REMEDY) / part
        if self.labels and self.split == "valid":
            return self._flat(base)
        return by_directory(self, base, self.classes, most=1000, numbered=self.split == "valid", remedy=IMAGENET_REMEDY)

    def _flat(self, base: Path) -> Dataset:
        names, said = images(base), [line.split() for line in lines(place_of(self.labels, DataError))]
        if len(said) != len(names):
            raise misfit(self.labels, f"{len(names)} lines, one for each image of {base}", str(len(said)), IMAGENET_REMEDY)
        owners: dict[str, str] = {}
        for number, (name, words) in enumerate(zip(names, said, strict=True), 1):
            image, key = words if len(words) == 2 else (name, words[0])
            if not _WNID.match(key) or len(words) > 2:
                raise misfit(f"{self.labels}, line {number}", "a WordNet id such as n01440764", repr(" ".join(words))[:80], IMAGENET_REMEDY)
            owners[image] = key
        strange = sorted(set(owners).symmetric_difference(names))
        if strange:
            raise misfit(
                self.labels, f"every image of {base} once", f"{strange[0]!r} only on one side (there: {listing(base, 2)})", IMAGENET_REMEDY
            )
        known = class_file(self.classes) if self.classes else {key: key for key in sorted(set(owners.values()))}
        for key in owners.values():
            if key not in known:
                raise DataError(f"{self.labels} names the class {key!r}, which {self.classes} does not; add it there")
        note = "" if len(known) == 1000 else f"{len(known)} classes, published are 1000"
        return dataset(self, base, names, [owners[name] for name in names], known, numbered=True, note=note)
