"""Requirements: what a run must have shown, as texts; read with `ast`, never evaluated.

    requirement = reading OPERATOR number            OPERATOR: >= > <= <
    reading     = cell | "low(" cell ")" | "high(" cell ")" | "value(" cell ")"
    cell        = NAME | NAME "[" [spec] ["," "net=" name] ["," "layer=" name] ["," "bound=" name] "]"
    number      = 0.4 | 3/8 | -1

NAME is that of a reading (`accuracy`, `ece`, `mce`). The spec is a perturbation, or a threat (`robust_accuracy[ball(eps=8/255)]`: the
reading about that threat); without one the clean samples are meant, or what a summary says. Specs are compared as components,
so fields at their default may be left out, and fields stand in any order.
"""

from __future__ import annotations

import ast
import io
import math
import tokenize
from dataclasses import dataclass
from typing import Any, Literal

from brinell.core.component import Component, parse
from brinell.core.errors import SpecError
from brinell.core.measurement import Bound
from brinell.core.perturbation import Perturbation
from brinell.core.threat import Threat

End = Literal["low", "high", "value"]
ENDS: tuple[End, ...] = ("low", "high", "value")
OPERATORS = {ast.GtE: ">=", ast.Gt: ">", ast.LtE: "<=", ast.Lt: "<"}
KEYWORDS = ("net", "layer", "bound")
FORM = 'a requirement looks like "low(accuracy[pgd(steps=40, threat=ball(eps=8/255))]) >= 0.4" or "mce <= 1.1"'


@dataclass(frozen=True)
class Requirement:
    """One number of a run held against a threshold.

    Arguments:
        text: as it was given. name: of the reading. operator, threshold: what it is held against.
        end: which number of the reading; None for the end of the interval that is harder to meet.
        perturbation, threat: what the reading is about, None where the text does not say. net, layer, bound: narrow it down.
    """

    text: str
    name: str
    operator: str
    threshold: float
    end: End | None = None
    perturbation: Perturbation | None = None
    threat: Threat | None = None
    net: str | None = None
    layer: str | None = None
    bound: Bound | None = None

    @property
    def from_below(self) -> bool:
        """Must the number be large?"""
        return self.operator in (">=", ">")

    @property
    def compared(self) -> End:
        """The number that is compared: the one that was asked for, else the end of the interval that is harder to meet."""
        return self.end or ("low" if self.from_below else "high")

    def met_by(self, number: float) -> bool:
        match self.operator:
            case ">=":
                return number >= self.threshold
            case ">":
                return number > self.threshold
            case "<=":
                return number <= self.threshold
        return number < self.threshold


def requirement(text: str) -> Requirement:
    """Read a requirement from its text.

    Raises:
        SpecError: the text is no requirement, or the spec in it is wrong; the message shows the text.

    Example:
        >>> wanted = requirement("low(accuracy[pgd(steps=40), net=a]) >= 2/5")
        >>> wanted.name, wanted.perturbation, wanted.net, wanted.compared, wanted.operator, wanted.threshold
        ('accuracy', pgd(steps=40, threat=ball(eps=8/255, norm=inf)), 'a', 'low', '>=', 0.4)
        >>> requirement("mce <= 1.1").compared
        'high'
    """
    if not isinstance(text, str):
        raise SpecError(f"a requirement is a text, not {type(text).__name__}; {FORM}")
    try:
        code = _with_calls(text.strip().replace("\n", " "))
        node = ast.parse(code, mode="eval").body
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise SpecError(
            f"cannot read the requirement {text!r}: {_why(error)}; {FORM}. Names that are no plain words go in quotes"
        ) from None
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in OPERATORS:
            end: End | None = None
            match left:
                case ast.Call(func=ast.Name(id="low" | "high" | "value" as asked), args=[inner], keywords=[]):
                    end, left = asked, inner
            name, about = _cell(left, code, text)
            return Requirement(text, name, OPERATORS[type(operator)], _number(right, text), end, **about)
    raise SpecError(f"the requirement {text!r} compares no reading with a number by >=, >, <= or <; {FORM}")


def _with_calls(text: str) -> str:
    """The text with the square brackets after names as round ones, which may hold `field=value`; those inside them stay."""
    line, opened, before = list(text), [], ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.OP and token.string in "([{":
            outer = token.string == "[" and before.isidentifier() and "cell" not in opened
            opened.append("cell" if outer else token.string)
            if outer:
                line[token.start[1]] = "("
        elif token.type == tokenize.OP and token.string in ")]}" and opened and opened.pop() == "cell":
            line[token.start[1]] = ")"
        before = token.string
    return "".join(line)


def _cell(node: ast.expr, code: str, text: str) -> tuple[str, dict[str, Any]]:
    """The name of a reading and what it is about."""
    match node:
        case ast.Name(id=name):
            return name, {}
        case ast.Call(func=ast.Name(id=name), args=[] | [_], keywords=keywords):
            found: dict[str, Any] = {}
            for item in keywords:
                if item.arg not in KEYWORDS or item.arg in found:
                    raise SpecError(f"{item.arg!r} in the requirement {text!r} is not one of {', '.join(KEYWORDS)}, once each")
                found[item.arg] = _word(item.value, code, text)
            if "bound" in found:
                found["bound"] = _bound(found["bound"], text)
            if node.args:
                about = parse(ast.get_source_segment(code, node.args[0]) or "", Component)
                if not isinstance(about, Perturbation | Threat):
                    raise SpecError(f"{about.spec()} in the requirement {text!r} is neither a perturbation nor a threat")
                found["perturbation" if isinstance(about, Perturbation) else "threat"] = about
            return name, found
    raise SpecError(f"{ast.unparse(node)[:80]!r} in the requirement {text!r} is no reading; {FORM}")


def _word(node: ast.expr, code: str, text: str) -> str:
    match node:
        case ast.Name(id=word) | ast.Constant(value=str() as word):
            return word
        case ast.Call() | ast.Attribute():
            return ast.get_source_segment(code, node) or ""
    raise SpecError(f"{ast.unparse(node)[:80]!r} in the requirement {text!r} is no name; put it in quotes")


def _bound(word: str, text: str) -> Bound:
    if word not in list(Bound):
        raise SpecError(f"bound={word} in the requirement {text!r} is not one of {', '.join(Bound)}")
    return Bound(word)


def _number(node: ast.expr, text: str) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and math.isfinite(number):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, text)
        case ast.BinOp(left=left, op=ast.Div(), right=right) if _number(right, text):
            return _number(left, text) / _number(right, text)
    raise SpecError(f"{ast.unparse(node)[:80]!r} in the requirement {text!r} is not a finite number such as 0.4 or 3/8")


def _why(error: BaseException) -> str:
    return str(getattr(error, "msg", None) or (error.args[0] if error.args else type(error).__name__))
