"""How the value of a field is written in a spec."""

from __future__ import annotations

import keyword
import math
import re
from typing import Any, Protocol, runtime_checkable

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@runtime_checkable
class Specified(Protocol):
    """What has a spec: a component."""

    def spec(self, *, full: bool = False) -> str: ...


def same(value: Any, default: Any) -> bool:
    """Equal and of one type: `2` and `2.0` are written differently."""
    return type(value) is type(default) and value == default


def written(value: Any, *, full: bool) -> str:
    """The text of a field's value; whole multiples of 1/255 as such, words without quotes.

    Example:
        >>> written((8 / 255, 2.0, "margin", "two words", None), full=False)
        "(8/255, 2, margin, 'two words', None)"
    """
    match value:
        case bool() | None:
            return str(value)
        case float():
            return _number(value)
        case tuple():
            inner = ", ".join(written(item, full=full) for item in value)
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case str() if _WORD.match(value) and not keyword.iskeyword(value) and value not in ("inf", "nan"):
            return value
        case Specified():
            return value.spec(full=full)
    return repr(value)


def _number(value: float) -> str:
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    levels = value * 255  # grey levels read better, and k/255 is exact for every whole k
    if abs(levels) < 2**16 and round(levels) / 255 == value:
        return f"{round(levels)}/255"
    return repr(value)
