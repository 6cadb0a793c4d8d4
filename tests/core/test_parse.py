"""Hostile, broken and huge spec texts: one kind of error, at once, and nothing evaluated."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brinell.core.component import Component, parse
from brinell.core.errors import SpecError
from brinell.core.perturbation import Perturbation
from brinell.core.threat import Ball, Threat


class Petal(Component, name="petal"):
    number: float = 1.0
    whole: int = 2
    text: str = "plain"
    many: tuple[float, ...] = ()
    other: Component | None = None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "()",
        "3",
        "'petal'",
        "petal()()",
        "petal.spec()",
        "petal.__class__",
        "petal(text=a.b)",
        "__import__('os').system('true')",
        "petal(text=__import__('os'))",
        "eval('1')",
        "petal(number=2**9999999)",
        "petal(number=9**9**9**9)",
        "petal(number=1+1)",
        "petal(number=2*3)",
        "petal(number=1<<99)",
        "petal(number=7//2)",
        "petal(number=7%2)",
        "petal(many=[n for n in (1, 2)])",
        "petal(many=(*(1, 2),))",
        "petal(text=f'{1}')",
        "petal(number=(n := 3))",
        "petal(text=lambda: 1)",
        "petal(number=1 if True else 2)",
        "petal(text={'a': 1})",
        "petal(many={1, 2})",
        "petal(many=(1, 2)[0])",
        "petal(number=not 1)",
        "petal(number=~1)",
        "petal(number=1j)",
        "petal(text=b'x')",
        "petal(text=...)",
        "petal(**{'a': 1})",
        "petal(*(1, 2))",
        "petal(number=1/0)",
        "petal(number=-'a')",
        "petal(number=True/2)",
        "petal(number='a'/2)",
        "petal(number=-ball)",
        "petal(number=nan)",
        "petal(a=1; b=2)",
        "import os",
        "petal\nball",
        "petal(number=1, number=2)",
        "petal(",
        "petal)",
        "await x",
        "yield",
        "x = 1",
        "\x00",
        "petal(text='a' 'b' if 1 else 2)",
        "petal == ball",
        "petal and ball",
        "petal(number=1e999/1e999)",
        "petal(whole=1_000.5)",
        "petal[0]",
        "petal(name='x')",
        "petal(_state={})",
        "component",
        "Component",
        "petal(number=1/1e-320)",
        "petal(number=" + "9" * 400 + "/3)",
        "petal(number=" + "9" * 400 + ")",
        "petal(whole=" + "9" * 5000 + ")",
    ],
)
def test_hostile_or_broken_text_is_refused_in_one_way(text):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "(" * 300 + ")" * 300,
        "petal(many=" + "(" * 90 + "1" + ",)" * 90 + ")",
        "-" * 5000 + "1",
        "petal(other=" * 40 + "ball" + ")" * 40,
        "petal(number=" + "1/" * 3000 + "1)",
        "petal(text='" + "a" * 200_000 + "')",
        "a" * 1_000_000,
        "f(" * 50_000,
    ],
)
def test_deep_and_huge_texts_are_refused_at_once(text):
    start = time.monotonic()
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert len(str(caught.value)) < 1000
    assert time.monotonic() - start < 2


def test_only_texts_are_parsed():
    for value in (None, 3, b"ball", Ball()):
        with pytest.raises(SpecError, match="a spec is a text"):
            parse(value)


def test_the_wanted_kind_is_checked():
    assert parse("ball", Threat) == Ball()
    with pytest.raises(SpecError, match=r"is a threat, but a perturbation is wanted"):
        parse("ball(eps=1)", Perturbation)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="abl_leaf()=,/.-*'\"[]{}:1 \n", max_size=40))
def test_any_text_gives_a_component_or_a_spec_error(text):
    try:
        assert isinstance(parse(text), Component)
    except SpecError as error:
        assert str(error)
