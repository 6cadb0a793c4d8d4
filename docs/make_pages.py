"""Make docs/components: one page per component from its docstring and its fields. `--check` only says what is out of date."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from brinell.core.component import Component, index, items, kind

PAGES = Path(__file__).parent / "components"


def page(name: str, cls: type[Component]) -> str:
    """The Markdown page of a component."""
    lines = [f"# `{name}`", "", f"A {kind(cls)}, version {cls.revision}, in `{cls.__module__}`.", "", "```text"]
    lines += [inspect.cleandoc(cls.__doc__ or ""), "```", "", "| field | type | default |", "|---|---|---|"]
    for field, info in sorted(cls.model_fields.items()):
        default = "required" if info.is_required() else f"`{info.get_default(call_default_factory=True)!r}`"
        annotation = info.annotation.__name__ if isinstance(info.annotation, type) else str(info.annotation).replace("typing.", "")
        lines.append(f"| `{field}` | `{annotation.replace('|', 'or')}` | {default.replace('|', 'or')} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """All pages by file name, the index among them."""
    shipped = {name: cls for name, cls in items().items() if index().get(name, ("",))[0].startswith("brinell.")}
    made = {f"{name}.md": page(name, cls) for name, cls in shipped.items()}
    rows = [f"- [`{name}`]({name}.md) ({kind(cls)}): {cls.summary_line()}" for name, cls in shipped.items()]
    made["README.md"] = "# Components\n\nMade by `docs/make_pages.py` from the docstrings.\n\n" + "\n".join(rows) + "\n"
    return made


def main() -> int:
    made, there = pages(), {file.name for file in PAGES.glob("*.md")}
    stale = [name for name, text in made.items() if name not in there or (PAGES / name).read_text(encoding="utf-8") != text]
    gone = sorted(there - set(made))
    if "--check" in sys.argv:
        sys.stdout.write("".join(f"{name} is out of date; run python docs/make_pages.py\n" for name in [*stale, *gone]))
        return 1 if stale or gone else 0
    PAGES.mkdir(exist_ok=True)
    for name in gone:
        (PAGES / name).unlink()
    for name in stale:
        (PAGES / name).write_text(made[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
