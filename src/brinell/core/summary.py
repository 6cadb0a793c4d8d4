"""Summaries: numbers and findings read off several measured cells at once."""

from __future__ import annotations

from typing import Any

from brinell.core.component import Component
from brinell.core.measurement import Finding, Reading


class Summary(Component):
    """Reads a finished table (`brinell.core.lab.Table`) and returns readings, each with the network it is about, and findings."""

    def __call__(self, table: Any) -> list[tuple[str, Reading] | Finding]:
        """Pairs (network name, reading), and findings."""
        raise TypeError(f"{type(self).__name__} does not say what it summarises")
