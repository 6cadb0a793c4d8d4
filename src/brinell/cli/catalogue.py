"""Commands that say what there is: `list` and `show`."""

from __future__ import annotations

from typing import Any, Literal

from brinell.cli.app import DONE, Json, app, say, say_json


@app.command(name="list")
def list_items(
    kind: Literal["data", "models", "perturb", "probe", "summary", "harden", "certify", "studies", ""] = "", *, json: Json = False
) -> int:
    """List what can be named in a spec.

    Parameters
    ----------
    kind
        Only the items of this package.
    """
    from brinell.core.component import items

    shown = {name: cls for name, cls in items().items() if not kind or cls.__module__.startswith(f"brinell.{kind}.")}
    if json:
        say_json([_about(name, cls) for name, cls in shown.items()])
        return DONE
    width = max((len(name) for name in shown), default=0)
    for place in sorted({_package(cls) for cls in shown.values()}):
        say(f"{place}:")
        for name, cls in shown.items():
            if _package(cls) == place:
                say(f"  {name:<{width}}  {cls.summary_line()}")
    return DONE


@app.command
def show(name: str, *, json: Json = False) -> int:
    """Show an item: what it is, its fields with their defaults, and its references.

    Parameters
    ----------
    name
        As in `brinell list`.
    """
    import inspect

    from brinell.core.component import get

    cls = get(name)
    if json:
        say_json({**_about(name, cls), "version": cls.revision, "doc": inspect.cleandoc(cls.__doc__ or ""), "fields": _fields(cls)})
        return DONE
    say(f"{name} (version {cls.revision}, {cls.__module__})\n\n{inspect.cleandoc(cls.__doc__ or '')}\n\nFields:")
    for field in _fields(cls):
        default = "required" if field["required"] else f"default {field['default']}"
        limits = f", {field['limits']}" if field["limits"] else ""
        say(f"  {field['name']}: {field['type']}, {default}{limits}")
    return DONE


def _about(name: str, cls: Any) -> dict[str, Any]:
    return {"name": name, "package": _package(cls), "module": cls.__module__, "summary": cls.summary_line()}


def _fields(cls: Any) -> list[dict[str, Any]]:
    """The fields of an item: name, type, default, and limits as texts."""
    return [
        {
            "name": field, "type": _type_name(info.annotation), "required": info.is_required(),
            "default": "" if info.is_required() else repr(info.get_default(call_default_factory=True)),
            "limits": ", ".join(str(limit) for limit in info.metadata),
        }
        for field, info in sorted(cls.model_fields.items())
    ]  # fmt: skip


def _package(cls: type) -> str:
    parts = cls.__module__.split(".")
    return parts[1] if parts[0] == "brinell" and len(parts) > 1 else parts[0]


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
