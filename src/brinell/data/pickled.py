"""Pickle files as inert records: what a file of plain arrays holds, without running anything that it asks for."""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from brinell.core.errors import DataError

_ARRAY = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
_BUFFER = {("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer")}
_ENCODE = {("_codecs", "encode")}
ALLOWED = {*_ARRAY, *_BUFFER, *_ENCODE, ("numpy", "ndarray"), ("numpy", "dtype")}
"""Names that files of arrays mention. They are never imported: each call of one is written down, as a `Call`."""

_STRINGS = {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_VALUES = {*_STRINGS, "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_SILENT = {"PROTO", "FRAME", "STOP"}


@dataclass(eq=False)
class Name:
    """A global that the pickle mentions."""

    module: str
    attribute: str


@dataclass(eq=False)
class Call:
    """A call that the pickle asks for and nobody makes; `state` is what it would then be given."""

    name: tuple[str, str]
    arguments: tuple[Any, ...]
    state: Any = None


class _Mark:
    pass


def read_pickle(body: bytes, place: str) -> Any:
    """The dicts, lists, tuples, texts, numbers and recorded calls of a pickle; nothing in it is imported or called.

    The pickle's instructions are carried out by this function on plain values only. Texts of Python 2 become `str` by Latin-1,
    which keeps their bytes.

    Arguments:
        body: the bytes of the file, of pickle protocol 2 to 5. place: its name, for the message.

    Raises:
        DataError: the bytes are no pickle or end early; the pickle asks for a name outside `ALLOWED`, or uses an
            instruction that plain arrays do not need. The message names it.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"labels": [1, 2]}), "batch")
        {'labels': [1, 2]}
        >>> read_pickle(pickle.dumps(print), "batch")
        Traceback (most recent call last):
        brinell.core.errors.DataError: batch: the pickle asks for 'builtins.print', which no file of plain arrays needs; ...
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in damaged names
            for code, argument, _ in pickletools.genops(body):
                _step(code.name, argument, stack, memo, place)
        (value,) = stack
    except DataError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        fact = f"{type(error).__name__}: {str(error)[:120]}"
        raise DataError(f"{place} is no whole pickle of plain arrays ({fact}); get the file again from where it is published") from error
    return value


def _step(code: str, argument: Any, stack: list[Any], memo: dict[int, Any], place: str) -> None:
    if code in _VALUES:
        stack.append(argument)
    elif code in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif code == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif code in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif code in _CONSTANTS:
        stack.append(_CONSTANTS[code])
    elif code in _EMPTY:
        stack.append(_EMPTY[code]())
    elif code == "MARK":
        stack.append(_Mark)
    elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(code[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif code == "TUPLE":
        stack.append(tuple(_marked(stack)))
    elif code in ("APPEND", "APPENDS"):
        items = _marked(stack) if code == "APPENDS" else [stack.pop()]
        _expect(stack[-1], list).extend(items)
    elif code in ("SETITEM", "SETITEMS"):
        items = _marked(stack) if code == "SETITEMS" else [stack.pop(-2), stack.pop()]
        keys = [_expect(key, str, bytes, int) for key in items[::2]]
        _expect(stack[-1], dict).update(zip(keys, items[1::2], strict=True))
    elif code == "GLOBAL":
        stack.append(_allowed(*argument.split(" ", 1), place=place))
    elif code == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_allowed(_expect(module, str), _expect(attribute, str), place=place))
    elif code == "REDUCE":
        arguments, name = _expect(stack.pop(), tuple), _expect(stack.pop(), Name)
        stack.append(_called((name.module, name.attribute), arguments))
    elif code == "BUILD":
        state = stack.pop()
        _expect(stack[-1], Call).state = state
    elif code not in _SILENT:
        raise DataError(f"{place}: the pickle uses the instruction {code}, which no file of plain arrays needs; it was not carried out")


def _allowed(module: str, attribute: str, place: str) -> Name:
    if (module, attribute) not in ALLOWED:
        asked = f"{module}.{attribute}"[:100]
        raise DataError(
            f"{place}: the pickle asks for {asked!r}, which no file of plain arrays needs; nothing of it was imported or run. "
            "Do not trust this file: get it again from where it is published"
        )
    return Name(module, attribute)


def _called(name: tuple[str, str], arguments: tuple[Any, ...]) -> Call | bytes:
    """The record of a call; bytes, which protocol 2 writes as text to be encoded by Latin-1, at once."""
    if name in _ENCODE:
        text, encoding = arguments
        if encoding != "latin1":
            raise ValueError("bytes in an encoding that pickles do not use")
        return _expect(text, str).encode("latin-1")
    return Call(name, arguments)


def _marked(stack: list[Any]) -> list[Any]:
    at = next((k for k in range(len(stack) - 1, -1, -1) if stack[k] is _Mark), None)
    if at is None:
        raise ValueError("an instruction lacks its mark")
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _expect(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise TypeError(f"a {type(value).__name__} where a {' or '.join(kind.__name__ for kind in kinds)} belongs")
    return value


def byte_array(value: Any, place: str) -> np.ndarray:
    """The array of bytes (uint8, any shape) that a recorded call describes.

    Raises:
        DataError: it describes something else, or has more or fewer bytes than its shape says.
    """
    try:
        call = _expect(value, Call)
        if call.name in _BUFFER:
            body, dtype, shape, order = call.arguments[:4]
            fortran = order == "F"
        elif call.name in _ARRAY:
            _, shape, dtype, fortran, body = _expect(call.state, tuple)
        else:
            raise TypeError(f"a call of {'.'.join(call.name)}")
        kind = _expect(dtype, Call).arguments[0]
        if dtype.name != ("numpy", "dtype") or kind not in ("u1", "|u1", "uint8"):
            raise TypeError(f"numbers of type {str(kind)[:20]!r}")
        sizes = tuple(_expect(size, int) for size in _expect(shape, tuple))
        body = body.encode("latin-1") if isinstance(body, str) else _expect(body, bytes, bytearray)  # Python 2 has one kind of text
        return np.frombuffer(body, dtype=np.uint8).reshape(sizes, order="F" if fortran else "C")
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"{place}: expected an array of bytes (uint8), found {str(error)[:120]}; get the file again") from error
