"""The page people look at: one self-contained HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from brinell.core.errors import StoreError
from brinell.core.lab import Table
from brinell.core.place import written_to
from brinell.report import verdict
from brinell.report.accuracy import attacks, classes, glance, groups
from brinell.report.album import Album
from brinell.report.answer import Answer
from brinell.report.content import Content
from brinell.report.corruption import corruptions, severity
from brinell.report.explanation import calibration, summaries
from brinell.report.falls import who_falls
from brinell.report.figure import CHANCE, SYMBOLS
from brinell.report.gallery import gallery, worst_cells
from brinell.report.inside import fourier, profiles
from brinell.report.origin import cost, gaps, provenance
from brinell.report.section import Section
from brinell.report.surface import surfaces

MARKS = "●■◆▲✚▼★✖"
"""The symbols of charts as text, for legends."""

_SPELLED = {
    code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)
}
_SPELLED = {code: text for code, text in _SPELLED.items() if chr(code) not in "\n\t"}


def write_report(table: Table, path: str | Path) -> Path:
    """Write a table as one HTML page: verdict, findings, charts with the tables behind them, cost and provenance.

    The page works offline and alone. It treats all text of the table as text: names that hold markup are shown, not obeyed, and a
    content security policy lets only the page's own scripts run, each by its hash, and nothing be fetched.

    Arguments:
        table: what a run measured; cells may be missing, and are then listed as such. path: the file to write.

    Returns:
        The path.

    Raises:
        StoreError: the file cannot be written.
    """
    return write_page(render(table), path)


def write_page(page: str, path: str | Path) -> Path:
    """Write the text of a page; `StoreError` where the file cannot be written."""
    place = Path(path)
    try:
        with written_to(place) as partial:
            partial.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise StoreError(f"cannot write the report {place}: {error.strerror or error}. Choose another place") from error
    return place


def sections(content: Content, album: Album | None = None) -> list[Section]:
    """All parts of the page that have something to show, in their order."""
    pictures = Album(content) if album is None else album
    found = [
        glance(content), corruptions(content), severity(content), fourier(content), *attacks(content), worst_cells(content, pictures),
        gallery(content, pictures), who_falls(content), classes(content), groups(content), profiles(content), surfaces(content),
        calibration(content),
        summaries(content), gaps(content), cost(content), provenance(content),
    ]  # fmt: skip
    return [section for section in found if section is not None]


def render(table: Table) -> str:
    """The page as text."""
    from markupsafe import Markup

    content = Content(table)
    album = Album(content)
    parts = sections(content, album)
    drawn = next((part.surfaces for part in parts if part.surfaces), None)
    pictures = {"strips": album.strips, "tile": album.tile, "gallery": next((part.gallery for part in parts if part.gallery), None)}
    return fill(
        "page.html",
        parts,
        [*([_own("gallery.js")] if album else []), *([_own("surface.js")] if drawn else [])],
        content=content,
        environment=content.plan.get("environment") or {},
        verdict=verdict,
        pictures=Markup(json_in_html(pictures)) if album else None,
        surfaces=Markup(json_in_html(drawn)) if drawn else None,
    )


def fill(template: str, parts: list[Section], more_scripts: list[str], **texts: Any) -> str:
    """A template of this folder with what all pages share: styles, figures, scripts and their hashes."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    figures = [panel.figure for section in parts for panel in section.panels]
    scripts = [_script(code) for code in (*([get_plotlyjs()] if figures else []), _own("page.js"), *more_scripts)]
    templates = jinja2.Environment(
        autoescape=True, finalize=_spelled, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_own),
    )  # fmt: skip
    return templates.get_template(template).render(
        sections=parts,
        is_answer=lambda entry: isinstance(entry, Answer),
        series=lambda which: "chance" if which == CHANCE else f"series-{which % len(SYMBOLS) + 1}",
        mark=lambda which: "○" if which == CHANCE else MARKS[which % len(MARKS)],
        styles=Markup(_own("page.css") + _own("parts.css")),
        figures=Markup(json_in_html(figures)),
        scripts=[Markup(script) for script in scripts],
        hashes=" ".join(_hash(script) for script in scripts),
        **texts,
    )


def json_in_html(value: Any) -> str:
    r"""JSON that cannot end, or start, anything in the HTML around it.

    Example:
        >>> json_in_html("</script>")
        '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _own(name: str) -> str:
    return resources.files("brinell.report").joinpath(name).read_text(encoding="utf-8")


def _script(code: str) -> str:
    """Code as it stands between script tags: with line ends as a browser reads them, and without an end tag inside."""
    return code.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _spelled(value: Any) -> Any:
    """Control characters and marks that turn the direction of text, spelled out, in every text that enters the page; no line breaks
    between a number and its per cent."""
    return value.translate(_SPELLED).replace(" %", "\u00a0%") if type(value) is str else value
