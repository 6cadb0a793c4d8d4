"""What a page is made of: sections with panels (a chart and the table behind it) and tables. A new section is one function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from brinell.report.answer import Answer
from brinell.report.content import Content

if TYPE_CHECKING:
    from markupsafe import Markup

Entry = str | int | float | None | Answer


@dataclass(frozen=True)
class Grid:
    """A table. `tidy` ones hold one plain value per entry, lie folded under a chart, and can be downloaded as CSV.

    Arguments:
        marked: numbers of the rows to point at. shares: answers lie in [0, 1] and are backed by a bar.
    """

    caption: str
    header: tuple[str, ...]
    rows: list[tuple[Entry, ...]]
    tidy: bool = False
    marked: frozenset[int] = frozenset()
    shares: bool = False

    def numeric(self, column: int) -> bool:
        """Is every entry of the column that holds something a number?"""
        held = [row[column] for row in self.rows if row[column] not in (None, "")]
        return bool(held) and not any(isinstance(entry, str) for entry in held)


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the series it stands for, by its number, and its name."""

    series: int
    name: str


@dataclass(frozen=True)
class Panel:
    """A chart (a Plotly figure as plain data) under a title, with the sentence that replaces it where it cannot be seen.

    Arguments:
        keys: a legend of its own, where it differs from panel to panel. wide: takes the whole width.
    """

    title: str
    figure: dict[str, Any]
    alternative: str
    keys: tuple[Key, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """One picture of the album: its strip and its place in it, what is said of it, and whether the network is right about it."""

    strip: int
    at: int
    words: str
    right: bool | None
    alternative: str


@dataclass(frozen=True)
class Strip:
    """A cell with some pictures of it."""

    title: str
    answer: Answer
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """A part of the page. `keys` is the legend of all its panels; `lead` says what is shown and how to read it.

    Arguments:
        strips: cells with pictures. gallery: what gallery.js builds one from. surfaces: what surface.js draws from; stills: SVG pictures
            that stand in for them on paper and without scripts, already escaped.
    """

    anchor: str
    title: str
    lead: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    panels: list[Panel] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    gallery: dict[str, Any] | None = None
    surfaces: dict[str, Any] | None = None
    stills: list[Markup] = field(default_factory=list)


TIDY = ("value", "low", "high", "n", "status", "reason")


def tidy(caption: str, header: Iterable[str], rows: Iterable[tuple[tuple[Entry, ...], Answer]]) -> Grid:
    """A downloadable table of answers: its own columns first, then value, interval, sample size, status and reason."""
    entries = [(*own, answer.value, answer.low, answer.high, answer.n or None, answer.status, answer.reason) for own, answer in rows]
    return Grid(caption, (*header, *TIDY), entries, tidy=True)


def read(content: Content, caption: str, header: Iterable[str], rows: Iterable[tuple[Entry, ...]], **more: Any) -> Grid:
    """A table to be read, not downloaded, whose first column is the network: left out where there is but one."""
    skip = 1 if len(content.networks) == 1 else 0
    return Grid(caption, tuple(header)[skip:], [row[skip:] for row in rows], **more)


def networks_as_keys(content: Content) -> tuple[Key, ...]:
    return tuple(Key(at, net) for at, net in enumerate(content.networks)) if len(content.networks) > 1 else ()
