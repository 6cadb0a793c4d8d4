"""Fitted states: components inside components are prepared, and get back what is theirs."""

import torch

from brinell.core.component import Component
from brinell.core.draws import derive
from brinell.core.threat import Ball


class Scaled(Component, name="scaled_for_a_test"):
    """Fits the mean of the data, times its own factor."""

    factor: float = 1.0

    def prepare(self, net, data, *, draws):
        return {"mean": self.factor * data, "draw": draws.uniform(1)}


class Wrapping(Component, name="wrapping_for_a_test"):
    """Fits nothing itself, holds things that do."""

    one: Component = Scaled()
    many: tuple[Component, ...] = ()


class Fitting(Wrapping, name="fitting_for_a_test"):
    """Fits something itself beside what it holds."""

    def prepare(self, net, data, *, draws):
        return {"own": data + 1, **(super().prepare(net, data, draws=draws) or {})}


def test_components_in_fields_are_prepared_and_get_their_state_back():
    item = Wrapping(one=Wrapping(one=Scaled(factor=2)), many=(Ball(), Scaled(factor=3)))
    state = item.prepare(None, torch.tensor(5.0), draws=derive(0, ids=[0]))
    assert {name: float(value) for name, value in state.items() if name.endswith("mean")} == {"one/one/mean": 10, "many.1/mean": 15}
    assert state["one/one/draw"] != state["many.1/draw"]
    ready = item.prepared(state)
    assert ready.state == {}
    assert float(ready.one.one.state["mean"]) == 10
    assert ready.many[0].state is None
    assert float(ready.many[1].state["mean"]) == 15
    assert ready.spec() == item.spec()
    assert item.many[1].state is None
    assert item.prepared(None).many[1].state is None


def test_an_item_that_fits_something_itself_keeps_the_state_of_its_parts_apart():
    item = Fitting(many=(Scaled(factor=3),))
    ready = item.prepared(item.prepare(None, torch.tensor(1.0), draws=derive(0, ids=[0])))
    assert {name: float(value) for name, value in ready.state.items()} == {"own": 2.0}
    assert float(ready.one.state["mean"]) == 1
    assert float(ready.many[0].state["mean"]) == 3
