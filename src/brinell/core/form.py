"""The form of what a run directory holds: checked when it is read, for somebody else may have written it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from brinell.core.errors import StoreError
from brinell.core.measurement import Finding, Verdict


class _Form(BaseModel):
    """What is there must be of its type; other entries, of later versions, may be there too."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Network(_Form):
    recipe: str = ""
    digest: str = ""
    notes: list[str] = []
    parameters: int = 0
    training: bool = False


class _Data(_Form):
    spec: str = ""
    digest: str = ""
    n: int = 0
    shape: list[int] = []
    classes: list[str] = []
    note: str = ""
    columns: list[str] = []
    domain: list[float | str] = []


class _Plan(_Form):
    format: int = 0
    suite: str = ""
    networks: dict[str, _Network]
    data: _Data
    perturbations: list[str]
    probes: list[str] = []
    summaries: list[str] = []
    full: dict[str, str] = {}
    versions: dict[str, str] = {}
    seed: int = 0
    shard: int = 0
    minutes: float | None = None
    environment: dict[str, str | int | float | None] = {}
    drafts: dict[str, bool] = {}


class _Finding(_Form):
    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    verdict: str
    message: str
    value: float | None = None
    threshold: float | None = None
    net: str = ""
    perturbation: str = ""


class _Row(_Form):
    net: str
    perturbation: str
    name: str
    layer: str | None = None
    probe: str | None = None
    status: str = ""
    reason: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    place: int | None = None


_PLAN, _FINDINGS, _ROWS = TypeAdapter(_Plan), TypeAdapter(list[_Finding]), TypeAdapter(list[_Row])


def plan_of(value: Any, place: str) -> dict[str, Any]:
    """What plan.json holds, once it has the form of a plan.

    Raises:
        StoreError: it has not; the message names the first entry that is wrong.

    Example:
        >>> plan_of([], "plan.json")
        Traceback (most recent call last):
        brinell.core.errors.StoreError: plan.json is not the plan of a run (Input should be a valid dictionary); ...
    """
    _checked(_PLAN, value, place, "the plan of a run")
    if "versions" in value:  # not in those of older versions
        specs = [*value["perturbations"], *value.get("probes", ())]
        lacking = [f"version of {spec}" for spec in specs if spec not in value["versions"]]
        lacking += [f"digest of {name}" for name, about in value["networks"].items() if "digest" not in about]
        lacking += [entry for entry in ("format", "seed", "probes") if entry not in value] + ["digest of the data"] * (
            "digest" not in value["data"]
        )
        if lacking:
            raise StoreError(f"{place} is not the plan of a run (it lacks the {lacking[0][:80]}); get the run directory again")
    return value


def findings_of(value: Any, place: str) -> list[Finding]:
    """The findings in what findings.json holds: a list, or a dict that holds one.

    Raises:
        StoreError: it holds something else.
    """
    found: Any = value.get("findings") if isinstance(value, dict) else value  # a list in runs of older versions
    _checked(_FINDINGS, found, place, "a list of findings")
    odd = [item["verdict"] for item in found if item["verdict"] not in {str(verdict) for verdict in Verdict}]
    if odd:
        raise StoreError(f"{place} is not a list of findings (no verdict is called {odd[0][:40]!r}); get the run directory again")
    return [Finding(**{**item, "verdict": Verdict(item["verdict"])}) for item in found]


def rows_of(rows: list[dict[str, Any]], place: str) -> list[dict[str, Any]]:
    """Rows of a table of readings, once they have its form.

    Raises:
        StoreError: they have not.
    """
    _checked(_ROWS, rows, place, "a table of readings")
    return rows


def _checked(form: TypeAdapter[Any], value: Any, place: str, what: str) -> None:
    try:
        form.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        said = first["msg"].partition(" or instance of")[0]
        raise StoreError(f"{place} is not {what} ({where + ': ' if where else ''}{said}); get the run directory again") from None
