"""Tables of run directories: what is finished there, read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brinell.core.errors import StoreError
from brinell.core.form import findings_of, plan_of, rows_of
from brinell.core.lab import Table
from brinell.engine.plan import keys_of
from brinell.engine.store import Store


def open_table(store: Store | str | Path, *, cells_only: bool = False) -> Table:
    """The table of a run directory as far as it is finished; with `cells_only` without what summaries said of it.

    Raises:
        StoreError: it is no run directory, or a file of it is damaged.
    """
    if not isinstance(store, Store):
        if not Path(store).is_dir():
            raise StoreError(f"{store} is no directory; give the --out of an earlier run")
        store = Store(store)
    plan = plan_of(store.read_json("plan.json"), str(store.root / "plan.json"))
    names = set(store.names("readings", ".parquet"))
    asked = keys_of(plan) if "versions" in plan else {}  # not in runs of older versions
    keys = {place: key for place, key in asked.items() if key in names}  # a finished cell may have samples without any reading
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in sorted(names):
        rows = rows_of(store.read_rows(f"readings/{name}.parquet"), f"readings/{name}.parquet")
        if rows:
            place = (rows[0]["net"], rows[0]["perturbation"])
            keys[place], found[place] = name, rows
    rows = [row for net in plan["networks"] for p in plan["perturbations"] for row in found.get((net, p), ())]
    if store.has("summary.parquet") and not cells_only:
        rows += rows_of(store.read_rows("summary.parquet"), "summary.parquet")
    noted = store.has("findings.json") and not cells_only
    findings = findings_of(store.read_json("findings.json"), str(store.root / "findings.json")) if noted else []

    def beside(main: str, path: str) -> bool:
        """Is there such a file? One that was written with `main` must be."""
        there = store.has(path)
        if not there and store.has(main) and path in store.signature(main).beside:
            raise StoreError(f"{store.root / path} is missing, though it was written; run again to measure it anew")
        return there

    def samples(net: str, perturbation: str) -> dict[str, np.ndarray]:
        key = keys.get((net, perturbation), "")
        path = f"samples/{key}.parquet"
        return store.read_columns(path) if key and beside(f"readings/{key}.parquet", path) else {}

    def array(row: Mapping[str, Any]) -> np.ndarray | None:
        key = keys.get((row["net"], row["perturbation"]), "") if row["perturbation"] else "summary"
        path, main = f"arrays/{key}.safetensors", f"readings/{key}.parquet" if row["perturbation"] else "summary.parquet"
        if not key or not beside(main, path):
            return None
        value = store.read_tensors(path)[0].get(str(row["place"]))
        return None if value is None else value.numpy()

    return Table(plan, rows, findings, samples, array)
