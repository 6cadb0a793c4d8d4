"""What is said of fields that are refused: short, whatever was given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

_LONGEST = 80
_MOST_FACTS = 5


def cut(text: str) -> str:
    """A text that may be long, as far as a message needs it.

    Example:
        >>> len(cut("a" * 1000))
        80
    """
    return text if len(text) < _LONGEST else text[: _LONGEST - 3] + "..."


def explain(name: str, fields: Iterable[str], error: ValidationError) -> str:
    """Which fields of a component were refused and why, the first few of them.

    Arguments:
        name: of the component. fields: the names of those it has. error: what the check of its fields raised.
    """
    facts = []
    for problem in error.errors()[:_MOST_FACTS]:
        place = cut(".".join(str(part) for part in problem["loc"]))
        if problem["type"] == "extra_forbidden":
            facts.append(f"no field {place!r} (fields: {', '.join(sorted(fields)) or 'none'})")
        elif problem["type"] == "missing":
            facts.append(f"field {place!r} is required")
        else:
            given, why = cut(_shown(problem.get("input"))), problem["msg"].removeprefix("Value error, ")
            facts.append(f"{place}={given}: {why}" if problem["loc"] else why)
    more = error.error_count() - len(facts)
    facts += [f"and {more} more"] if more else []
    return f"{name}: {'; '.join(facts)}"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # an integer with more digits than Python writes
        return f"a huge {type(value).__name__}"
