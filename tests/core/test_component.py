"""Components and their one text form."""

import math
import pickle
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from brinell.core import component as module
from brinell.core.component import Component, get, index, items, kind, parse, walk
from brinell.core.errors import BrinellError, SpecError
from brinell.core.perturbation import Attack, Corruption
from brinell.core.threat import Ball, Threat


class Leaf(Component, name="leaf_for_a_test"):
    number: float = 1.0
    whole: int = 2
    flag: bool = False
    text: str = "plain"
    maybe: float | None = None
    choice: Literal["left", "right"] = "left"
    many: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    size: float = Field(1.0, gt=0, le=10)


class Branch(Component, name="branch_for_a_test"):
    leaf: Leaf = Leaf()
    other: Component | None = None
    leaves: tuple[Leaf, ...] = ()
    pairs: tuple[tuple[str, float], ...] = ()


class Placed(Component, name="placed_for_a_test"):
    first: int = 1
    second: int = 2
    third: int = 3
    positional = ("first", "second")


class Needy(Component, name="needy_for_a_test"):
    must: int


class Telling(Component, name="telling_for_a_test"):
    shown: int = 1
    hidden: int = 2
    telling = ("shown",)


def same(component: Component) -> None:
    for text in (component.spec(), component.spec(full=True), str(component), repr(component)):
        back = parse(text)
        assert back == component
        assert hash(back) == hash(component)
        assert back.spec() == component.spec()
        assert type(back) is type(component)


# the text form


@pytest.mark.parametrize("k", range(256))
def test_every_grey_level_round_trips(k):
    ball = Ball(eps=k / 255)
    same(ball)
    assert parse(f"ball(eps={k}/255)") == ball
    if k % 255:
        assert f"eps={k}/255" in ball.spec()


@settings(deadline=None, max_examples=300)
@given(
    st.builds(
        Leaf,
        number=st.floats(allow_nan=False),
        whole=st.integers(),
        flag=st.booleans(),
        text=st.text(),
        maybe=st.none() | st.floats(allow_nan=False),
        choice=st.sampled_from(["left", "right"]),
        many=st.lists(st.floats(allow_nan=False)).map(tuple),
        words=st.lists(st.text()).map(tuple),
    )
)
def test_any_leaf_round_trips(leaf):
    same(leaf)
    same(Branch(leaf=leaf, other=leaf, leaves=(leaf, Leaf()), pairs=tuple((word, 0.5) for word in leaf.words)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "inf",
        "nan",
        "None",
        "True",
        "a b",
        "it's",
        'say "so"',
        "both ' and \"",
        "line\nbreak",
        "tab\t",
        "\\",
        "\\n",
        "{x}",
        "résumé",
        "日本",
        "\x00",
        "\ud800",
        "lambda",
        "ball",
        "leaf_for_a_test",
        "-1",
        "1/2",
        "(",
        "a" * 5000,
        "__class__",
        "#",
    ],
)
def test_awkward_texts_round_trip(text):
    same(Leaf(text=text))
    same(Leaf(words=(text,)))
    same(Leaf(words=(text, text)))


@pytest.mark.parametrize(
    "number", [math.inf, -math.inf, 0.0, -0.0, 1e-320, 1e308, 2.0**53, 1e15, 1e16, 0.1, 1 / 3, 254.5 / 255, -8 / 255, 300 / 255]
)
def test_awkward_numbers_round_trip(number):
    same(Leaf(number=number, maybe=number, many=(number,)))


def test_fields_stand_in_alphabetical_order_and_defaults_are_left_out():
    assert Leaf().spec() == "leaf_for_a_test"
    assert Leaf(whole=3, number=2).spec() == "leaf_for_a_test(number=2, whole=3)"
    assert Leaf(many=(1.0,)).spec() == "leaf_for_a_test(many=(1,))"
    assert Branch().spec(full=True).startswith("branch_for_a_test(leaf=leaf_for_a_test(choice=left, flag=False, many=(), maybe=None, ")
    assert Telling().spec() == "telling_for_a_test(shown=1)"


def test_equal_components_have_one_text():
    assert Leaf(number=8 / 255).spec() == Leaf(number=parse("leaf_for_a_test(number=8/255)").number).spec()
    assert Leaf(number=2).spec() == Leaf(number=2.0).spec()
    assert parse("leaf_for_a_test(number=16/510)") == Leaf(number=8 / 255)


def test_positional_fields():
    assert parse("placed_for_a_test(5, 6, third=7)") == Placed(first=5, second=6, third=7)
    for placed in (
        Placed(first=5),
        Placed(second=5),
        Placed(third=5),
        Placed(first=4, third=5),
        Placed(second=4, third=5),
        Placed(first=9, second=8),
    ):
        same(placed)
    with pytest.raises(SpecError, match="at most 2"):
        parse("placed_for_a_test(1, 2, 3)")
    with pytest.raises(SpecError, match="only field=value"):
        parse("leaf_for_a_test(1)")
    with pytest.raises(SpecError, match="'first' twice"):
        parse("placed_for_a_test(1, first=2)")


def test_words_become_components_only_where_a_field_holds_one():
    assert parse("branch_for_a_test(other=ball)").other == Ball()
    assert parse("branch_for_a_test(leaves=(leaf_for_a_test, leaf_for_a_test(whole=5)))").leaves == (Leaf(), Leaf(whole=5))
    assert parse("leaf_for_a_test(text=ball)").text == "ball"
    assert type(parse("leaf_for_a_test(text=ball)").text) is str
    assert all(type(word) is str for word in parse("leaf_for_a_test(words=(a, b))").words)
    assert parse("branch_for_a_test(pairs=((a, 1), (b, 1/2)))").pairs == (("a", 1.0), ("b", 0.5))


def test_lists_spaces_and_line_breaks_are_fine():
    assert parse("  leaf_for_a_test( many = [1, 2] ,\n whole=+3 )  ") == Leaf(many=(1.0, 2.0), whole=3)


# values


@pytest.mark.parametrize(
    ("fields", "fact"),
    [
        ({"nothing": 1}, "no field 'nothing'"),
        ({"whole": 1.5}, "whole=1.5"),
        ({"whole": "3"}, "whole='3'"),
        ({"whole": True}, "whole=True"),
        ({"number": True}, "number=True"),
        ({"number": "1"}, "number='1'"),
        ({"flag": 1}, "flag=1"),
        ({"text": 1}, "text=1"),
        ({"number": math.nan}, "nan"),
        ({"many": (1.0, math.nan)}, "many"),
        ({"many": (True,)}, "many"),
        ({"choice": "up"}, "choice='up'"),
        ({"size": 0}, "size=0"),
        ({"size": 10.5}, "size=10.5"),
        ({"number": np.float32(8 / 255)}, "rounded float32"),
        ({"number": np.float16(0.5)}, "rounded float16"),
        ({"number": 1j}, "number="),
        ({"number": np.array([1.0, 2.0])}, "number"),
        ({"number": None}, "number=None"),
        ({"whole": np.bool_(True)}, "whole"),
        ({"text": "a" * 9999, "whole": "b" * 999}, "whole"),
    ],
)
def test_wrong_values_are_refused_by_field(fields, fact):
    with pytest.raises(SpecError, match=fact) as caught:
        Leaf(**fields)
    assert "leaf_for_a_test" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, BrinellError)


def test_a_missing_field_is_named():
    with pytest.raises(SpecError, match="'must' is required"):
        parse("needy_for_a_test")
    same(Needy(must=0))


def test_numpy_numbers_and_whole_numbers_become_plain_ones():
    leaf = Leaf(
        number=np.float64(8 / 255),
        whole=np.int64(3),
        flag=np.bool_(True),
        many=[np.float64(1.5), 2],
        maybe=np.int32(4),
        text=np.str_("word"),
    )
    assert leaf == Leaf(number=8 / 255, whole=3, flag=True, many=(1.5, 2.0), maybe=4.0, text="word")
    plain = (leaf.number, leaf.whole, leaf.flag, leaf.many, *leaf.many, leaf.maybe, leaf.text)
    assert [type(value) for value in plain] == [float, int, bool, tuple, float, float, float, str]
    same(leaf)


def test_components_are_frozen_and_hashable():
    leaf = Leaf()
    with pytest.raises(ValidationError, match="frozen"):
        leaf.number = 2.0
    assert len({Leaf(), Leaf(number=1), Leaf(number=2)}) == 2
    assert pickle.loads(pickle.dumps(Branch(leaf=Leaf(whole=7)))) == Branch(leaf=Leaf(whole=7))


def test_replace_validates():
    assert Leaf(whole=3).replace(number=2) == Leaf(whole=3, number=2.0)
    assert Branch(other=Ball()).replace(leaf=Leaf(whole=9)) == Branch(other=Ball(), leaf=Leaf(whole=9))
    for bad in ({"size": -1}, {"nothing": 1}, {"whole": "x"}):
        with pytest.raises(SpecError):
            Leaf().replace(**bad)


def test_a_subclass_in_a_base_field_keeps_its_class_and_fields():
    branch = Branch(other=Ball(norm=2, eps=0.25))
    assert type(parse(branch.spec()).other) is Ball
    with pytest.raises(SpecError, match="leaf"):
        Branch(leaf=Ball())
    with pytest.raises(SpecError, match="other"):
        Branch(other={"eps": 1.0})


def test_prepared_state_is_no_part_of_identity():
    ready = Leaf().prepared({"scale": 1})
    assert ready.state == {"scale": 1}
    assert Leaf().state is None
    assert ready.spec() == Leaf().spec()
    assert Leaf().prepare(None, None, draws=None) is None


# names


def test_key_holds_the_versions_of_all_parts():
    class Newer(Component, name="newer_for_a_test", version=3):
        part: Component = Leaf()

    assert Leaf().key() == "leaf_for_a_test@1"
    assert Newer(part=Ball(eps=0.5)).key() == "newer_for_a_test(part=ball(eps=0.5, norm=inf))@3.1"
    assert Newer().key().endswith("@3.1")
    assert [type(part) for part in walk((Newer(part=Branch()),))] == [Newer, Branch, Leaf]


def test_names_must_be_plain_and_free():
    for bad in ("Upper", "with-dash", "1st", "class", "with space", "ünder"):
        with pytest.raises(SpecError, match="lower_snake_case"):
            type("Bad", (Component,), {"__module__": __name__}, name=bad)
    with pytest.raises(SpecError, match="is taken by"):
        type("Double", (Component,), {"__module__": __name__}, name="leaf_for_a_test")
    assert get("leaf_for_a_test") is Leaf


def test_an_abstract_subclass_takes_no_name():
    class Abstract(Corruption):
        pass

    class Concrete(Abstract, name="concrete_for_a_test"):
        pass

    assert Abstract.name == ""
    assert parse("concrete_for_a_test") == Concrete()
    assert kind(Concrete) == "corruption"
    assert (kind(Ball), kind(Leaf), kind(Attack)) == ("threat", "component", "attack")
    assert "concrete_for_a_test" in items(Corruption)
    assert "concrete_for_a_test" not in items(Threat)


def test_unknown_names_get_near_misses():
    with pytest.raises(SpecError, match="did you mean ball"):
        parse("bal(eps=1)")
    with pytest.raises(SpecError, match="brinell list"):
        parse("qqqqqqqq")


def test_the_index_knows_items_without_importing_them():
    places = index()
    assert places["ball"] == ("brinell.core.threat", "Ball")
    assert places["clean"] == ("brinell.perturb.clean", "Clean")
    assert places["gaussian_noise"] == ("brinell.perturb.noise", "GaussianNoise")
    assert "leaf_for_a_test" not in places


def test_third_parties_announce_items_as_entry_points(monkeypatch, tmp_path):
    package = tmp_path / "otherlab.py"
    package.write_text(
        "from brinell.core.perturbation import Corruption\n"
        "class Foreign(Corruption, name='foreign_for_a_test'):\n    strength: float = 1.0\n"
        "class Misnamed(Corruption, name='misnamed_for_a_test'):\n    pass\n"
        "plain = 3\n"
    )
    points = [
        module.metadata.EntryPoint("foreign_for_a_test", "otherlab:Foreign", "brinell"),
        module.metadata.EntryPoint("wrong_for_a_test", "otherlab:Misnamed", "brinell"),
        module.metadata.EntryPoint("plain_for_a_test", "otherlab:plain", "brinell"),
        module.metadata.EntryPoint("lost_for_a_test", "no_such_module_at_all:X", "brinell"),
        module.metadata.EntryPoint("gone_for_a_test", "otherlab:Gone", "brinell"),
        module.metadata.EntryPoint("ball", "otherlab:Foreign", "brinell"),
    ]
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module.metadata, "entry_points", lambda *, group: points if group == "brinell" else [])
    index.cache_clear()
    try:
        assert parse("foreign_for_a_test(strength=2)").spec() == "foreign_for_a_test(strength=2)"
        for name in ("wrong_for_a_test", "plain_for_a_test", "lost_for_a_test", "gone_for_a_test"):
            with pytest.raises(SpecError, match=name):
                parse(name)
        assert index()["ball"] == ("brinell.core.threat", "Ball")
    finally:
        index.cache_clear()
        for name in ("foreign_for_a_test", "misnamed_for_a_test"):
            Component.registry.pop(name, None)


def test_derived_fields_are_never_written_and_follow():
    class Follows(Component, name="test_follows"):
        derived = ("twice",)
        number: int = 1
        twice: int = 2

        @model_validator(mode="after")
        def _follow(self):
            vars(self)["twice"] = 2 * self.number
            return self

    item = Follows(number=4)
    assert item.twice == 8 and item.spec() == "test_follows(number=4)" == item.spec(full=True)
    assert parse(item.spec()) == item and item.replace(number=5).twice == 10
