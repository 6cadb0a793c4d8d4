"""Components: frozen records whose fields are their parameters, and the one text form they have.

`component.spec()` is at once the repr, the command-line argument, the cache key and the stored provenance;
`parse(component.spec()) == component`. The text is read with `ast` and never evaluated.

    spec      = NAME | NAME "(" [argument ("," argument)*] ")"
    argument  = FIELD "=" value | value                  (bare values only for fields listed in `positional`)
    value     = number | number "/" number | "inf" | "-inf" | True | False | None | string | word
              | "(" value, ... ")" | "[" value, ... "]" | spec

A word is a bare name: a component where the field holds one (`goal=misclassify`), else the string itself (`loss=margin`).
"""

from __future__ import annotations

import ast
import importlib
import itertools
import keyword
import math
import re
import typing
import warnings
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, field_validator

from brinell.core.errors import SpecError
from brinell.core.refusal import cut, explain
from brinell.core.written import same, written

State = dict[str, Any]
"""What a component's `prepare` fitted: tensors by name."""

ITEM_PACKAGES = ("data", "models", "perturb", "probe", "certify", "summary", "harden")
"""Sub-packages whose files hold items. They are scanned for names; a module is imported when its name is parsed."""

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_CLASS_WITH_NAME = re.compile(r"^class\s+(\w+)\s*\([^)]*\bname\s*=\s*[\"']([a-z][a-z0-9_]*)[\"']", re.MULTILINE)
_MAX_SPEC_LENGTH = 100_000
_MAX_DEPTH = 32
_MOST_BITS = 10_000  # Python reads more, but does not write them


class Word(str):
    """A bare name met while parsing; it becomes a component or a plain string once its field is known."""


class Component(BaseModel):
    """A frozen record with a registered name: the base of threats, perturbations, probes and every other item.

    A subclass that gives `name=` is an item; one that does not is abstract. `version=` is an integer that is raised by any
    change that moves the item's numbers, kept as `revision`; it is part of every cache key. `positional` lists the fields that may be given
    without their name, `telling` those that the spec shows even at their default, because a reader wants to see them,
    `derived` those that follow from others and are never written.

    Raises:
        SpecError: a field is unknown, of the wrong type, or out of its range; the message names the field and the fact.

    Example:
        >>> from brinell.core.threat import Ball
        >>> Ball(eps=8 / 255).spec()
        'ball(eps=8/255, norm=inf)'
        >>> parse("ball(norm=2, eps=0.5)") == Ball(norm=2, eps=0.5)
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    registry: ClassVar[dict[str, type[Component]]] = {}  # by name, of those imported; a kind never nested may keep its own
    packages: ClassVar[tuple[str, ...]] = ITEM_PACKAGES
    name: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    positional: ClassVar[tuple[str, ...]] = ()
    telling: ClassVar[tuple[str, ...]] = ()
    derived: ClassVar[tuple[str, ...]] = ()
    _state: State | None = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(explain(type(self).name or type(self).__name__, type(self).model_fields, error)) from None

    def __init_subclass__(cls, *, name: str = "", version: int = 1, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # pydantic hands name and version on to the hook below

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str = "", version: int = 1, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.name, cls.revision = name, version
        if not name:
            return
        if not _NAME.match(name) or keyword.iskeyword(name):
            raise SpecError(f"component name {name!r} of {cls.__name__} must be lower_snake_case and no Python keyword")
        known = cls.registry.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise SpecError(
                f"component name {name!r} is taken by {known.__module__}.{known.__qualname__}; "
                f"{cls.__module__}.{cls.__qualname__} needs another one"
            )
        cls.registry[name] = cls

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Lists become tuples, numpy numbers become Python ones, `"inf"` and whole numbers fit float fields."""
        if isinstance(value, list | tuple):
            return tuple(cls._plain(item) for item in value)
        if isinstance(value, float):
            value = float(value)
            if math.isnan(value):
                raise ValueError("nan is not a value; leave the field out to use its default")
        elif type(value).__module__ == "numpy":
            item = value.item() if hasattr(value, "item") else value
            if isinstance(item, float) and type(value).__name__ != "float64":
                raise ValueError(f"{value!r} is a rounded {type(value).__name__}; pass a Python float (e.g. 8/255)")
            return item
        return value

    def spec(self, *, full: bool = False) -> str:
        """The text that `parse` turns back into this component: telling and non-default fields in alphabetical order.

        Arguments:
            full: also write the fields that have their default value (the form that is stored, so that a later change of
                a default cannot change what a stored text means).
        """
        fields = type(self).model_fields
        shown = {
            field: written(getattr(self, field), full=full)
            for field, info in sorted(fields.items())
            if field not in self.derived
            if full
            or field in self.telling
            or info.is_required()
            or not same(getattr(self, field), info.get_default(call_default_factory=True))
        }
        bare = itertools.takewhile(shown.__contains__, self.positional)  # a gap would move the later ones into it
        values = [shown.pop(field) for field in list(bare)]
        arguments = values + [f"{field}={text}" for field, text in shown.items()]
        return f"{self.name}({', '.join(arguments)})" if arguments or full else self.name

    __repr__ = spec
    __str__ = spec

    def key(self) -> str:
        """The text that enters cache keys: the spec and the versions of this component and of those inside it."""
        return f"{self.spec()}@{'.'.join(str(part.revision) for part in walk(self))}"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated like a new one."""
        given = [field for field in type(self).model_fields if field not in self.derived]
        return type(self)(**{**{field: getattr(self, field) for field in given}, **changes})

    def prepare(self, net: Any, data: Any, *, draws: Any) -> State | None:
        """Fit what must be known before the first sample (a scale, a detector); None when there is nothing to fit.

        By default the components in the fields are prepared, each with draws of its own; their tensors are called `FIELD/NAME`. An
        item that fits something itself adds what its parts fitted: `{"scale": scale, **(super().prepare(net, data, draws=draws) or {})}`.
        """
        state: State = {}
        for place, part in self.__inside():
            if all(type(inner).prepare is Component.prepare for inner in walk(part)):
                continue
            fitted = part.prepare(net, data, draws=draws.at(place)) or {}
            state |= {f"{place}/{key}": value for key, value in fitted.items()}
        return state or None

    @property
    def state(self) -> State | None:
        """What `prepare` fitted, once the lab has run it; None before."""
        return self._state

    def prepared(self, state: State | None) -> Self:
        """This component with the given fitted state; the components in its fields get their part of it."""
        own = dict(state or {})
        parts: dict[str, State] = {place: {} for place, _ in self.__inside()}
        for key in list(own):
            place, _, name = key.partition("/")
            if place in parts:
                parts[place][name] = own.pop(key)
        fields = {field: getattr(self, field) for field in type(self).model_fields}
        twin = self.model_copy(update={field: _with_states(value, field, parts) for field, value in fields.items()})
        twin._state = None if state is None else own
        return twin

    def __inside(self) -> typing.Iterator[tuple[str, Component]]:
        """The components in the fields and their places: `attack`, or `attacks.0` in a tuple."""
        for field in sorted(type(self).model_fields):
            yield from _components(getattr(self, field), field)

    @classmethod
    def summary_line(cls) -> str:
        """The first sentence of the docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]


def walk(value: Any) -> typing.Iterator[Component]:
    """All components inside a value, the outermost first."""
    if isinstance(value, Component):
        yield value
        for field in sorted(type(value).model_fields):
            yield from walk(getattr(value, field))
    elif isinstance(value, tuple):
        for item in value:
            yield from walk(item)


def _components(value: Any, place: str) -> typing.Iterator[tuple[str, Component]]:
    if isinstance(value, Component):
        yield place, value
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            yield from _components(item, f"{place}.{at}")


def _with_states(value: Any, place: str, states: dict[str, State]) -> Any:
    if isinstance(value, Component):
        return value.prepared(states[place]) if states[place] else value
    if isinstance(value, tuple):
        return tuple(_with_states(item, f"{place}.{at}", states) for at, item in enumerate(value))
    return value


def parse(text: str, expect: type[Component] = Component) -> Any:
    """Read a component from its text; nothing in the text is ever evaluated.

    Arguments:
        text: a spec such as `"pgd(steps=40, threat=ball(norm=inf, eps=8/255))"`.
        expect: the kind of component that is wanted.

    Raises:
        SpecError: the text is not a spec, names no component, or a field is wrong. The message shows the text.

    Example:
        >>> parse("ball(norm=inf, eps=8/255)").eps == 8 / 255
        True
    """
    if not isinstance(text, str):
        raise SpecError(f"a spec is a text such as 'pgd(steps=40)'; got {type(text).__name__}")
    shown = text if len(text) <= 200 else text[:200] + "..."
    if len(text) > _MAX_SPEC_LENGTH:
        raise SpecError(f"spec of {len(text)} characters is longer than {_MAX_SPEC_LENGTH}: {shown!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts that are kept as they are
            node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        raise SpecError(f"cannot read the spec {shown!r}: {reason}. A spec looks like 'pgd(steps=40, goal=misclassify)'") from None
    value = _value(node, shown, 0, expect)
    component = get(value, expect)() if isinstance(value, Word) else value
    if not isinstance(component, Component):
        raise SpecError(f"the spec {shown!r} is a plain value, not a component such as 'pgd(steps=40)'")
    if not isinstance(component, expect):
        raise SpecError(f"{shown!r} is a {kind(type(component))}, but a {kind(expect)} is wanted here")
    return component


def get(name: str, expect: type[Component] = Component) -> type[Component]:
    """The component class with this name, among those `expect` is registered with; its module is imported now if it was not before.

    Raises:
        SpecError: no component has this name; near misses are listed.
    """
    if name in expect.registry:
        return expect.registry[name]
    places = index(expect.packages)
    if name in places:
        module, attribute = places[name]
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise SpecError(f"component {name!r} was announced in {module}:{attribute}, which cannot be imported: {error}") from error
        if isinstance(found, type) and issubclass(found, Component) and found.name == name:
            return found
        raise SpecError(f"{module}:{attribute} was announced as component {name!r} but is not one of that name")
    import difflib

    near = difflib.get_close_matches(name, sorted({*places, *expect.registry}), n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise SpecError(f"no component is called {cut(repr(name))}{hint} (`brinell list` shows all)")


@cache
def index(packages: tuple[str, ...] = ITEM_PACKAGES) -> dict[str, tuple[str, str]]:
    """Where each item lives, by name: `{name: (module, class)}`; read from source text and entry points, importing nothing.

    Third parties announce items as entry points of the group `brinell`: `my_noise = "my_package.my_module:MyNoise"`.
    """
    places: dict[str, tuple[str, str]] = {}
    spec = util.find_spec("brinell")
    roots = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    for root in roots:
        files = [root / "core" / f"{noun}.py" for noun in ("threat", "goal", "network")]
        for package in packages:
            files += sorted((root / package).rglob("*.py"))
        for file in files:
            module = ".".join(("brinell", *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
            for found in _CLASS_WITH_NAME.finditer(file.read_text(encoding="utf-8")):
                places[found.group(2)] = (module, found.group(1))
    for point in metadata.entry_points(group="brinell"):
        module, _, attribute = point.value.partition(":")
        places.setdefault(point.name, (module, attribute))
    return places


def items(base: type[Component] = Component) -> dict[str, type[Component]]:
    """All items of one kind by name, imported; those defined in running code included."""
    found = {name: get(name, base) for name in index(base.packages)}
    found.update(base.registry)
    return {name: cls for name, cls in sorted(found.items()) if issubclass(cls, base)}


def kind(cls: type[Component]) -> str:
    """The noun of the core a component belongs to, for messages and listings: `threat`, `attack`, `probe`, ..."""
    for base in cls.__mro__:
        if issubclass(base, Component) and not base.__dict__.get("name") and base.__module__.startswith(f"{__package__}."):
            return base.__name__.lower()
    return "component"


def _value(node: ast.expr, text: str, depth: int, expect: type[Component] = Component) -> Any:
    if depth > _MAX_DEPTH:
        raise SpecError(f"the spec {text!r} is nested deeper than {_MAX_DEPTH}")
    match node:
        case ast.Constant(value=int() as number) if number.bit_length() > _MOST_BITS:
            raise SpecError(f"the spec {text!r} holds a whole number of {number.bit_length():,} bits; give one of at most {_MOST_BITS:,}")
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.Name(id="inf"):
            return math.inf
        case ast.Name(id=name):
            return Word(name)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _number(_value(operand, text, depth + 1), text)
            return -number if isinstance(sign, ast.USub) else number
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            top, bottom = (_number(_value(side, text, depth + 1), text) for side in (left, right))
            try:
                ratio = top / bottom
            except (ZeroDivisionError, OverflowError) as error:
                raise SpecError(f"{error} in the spec {text!r}") from None
            if not math.isfinite(ratio):
                raise SpecError(f"{top!r}/{bottom!r} in the spec {text!r} is not a finite number")
            return ratio
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return tuple(_value(element, text, depth + 1) for element in elements)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            cls = get(name, expect)
            if len(args) > len(cls.positional):
                allowed = f"at most {len(cls.positional)} value(s) without a name" if cls.positional else "only field=value"
                raise SpecError(f"{name} in {text!r} takes {allowed}; its fields are {', '.join(sorted(cls.model_fields)) or 'none'}")
            fields = {field: _value(arg, text, depth + 1) for field, arg in zip(cls.positional, args, strict=False)}
            for item in keywords:
                if item.arg is None or item.arg in fields:
                    raise SpecError(f"{name} in {text!r} gets {'** arguments' if item.arg is None else f'{item.arg!r} twice'}")
                fields[item.arg] = _value(item.value, text, depth + 1)
            return cls(**{field: _resolve(cls, field, value) for field, value in fields.items()})
    raise SpecError(
        f"{_shown(node)!r} in the spec {text!r} is not allowed: specs hold numbers, a/b, inf, True, False, None, "
        f"texts, tuples and components; a text that is no plain word, such as a path, goes in quotes"
    )


def _shown(node: ast.expr) -> str:
    try:
        return ast.unparse(node)[:60]
    except (RecursionError, ValueError):  # deeply nested, or a number with too many digits
        return type(node).__name__


def _number(value: Any, text: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{value!r} in the spec {text!r} is used in arithmetic but is not a number")
    return value


def _resolve(cls: type[Component], field: str, value: Any) -> Any:
    """Turn words into components where the field holds components, and into plain strings elsewhere."""
    if isinstance(value, tuple):
        return tuple(_resolve(cls, field, item) for item in value)
    if not isinstance(value, Word):
        return value
    info = cls.model_fields.get(field)
    if info is not None and _holds_component(info.annotation):
        return get(value)()
    return str(value)


def _holds_component(annotation: Any) -> bool:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return issubclass(annotation, Component)
    return any(_holds_component(argument) for argument in typing.get_args(annotation))
