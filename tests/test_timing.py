"""How the benchmarks take time: every side gets its own seconds, whoever's turn it is."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "timing.py"


@pytest.fixture
def timing():
    spec = importlib.util.spec_from_file_location("timing_of_benchmarks", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sides_that_take_turns_get_the_seconds_of_their_steps(timing):
    now, order = [0.0], []

    def side(name, *steps):
        def made():
            for step in steps[:-1]:
                order.append(name)
                now[0] += step
                yield
            now[0] += steps[-1]  # after the last step

        return made

    sides = {"long": side("long", 1.0, 2.0, 4.0, 0.5), "short": side("short", 10.0, 0.0)}
    seconds = timing.in_turns(sides, 3, warmup=1, clock=lambda: now[0])
    assert seconds == {"long": [7.5] * 3, "short": [10.0] * 3}
    assert order[:4] == ["long", "short", "long", "long"] and order.count("short") == 4
    with pytest.raises(ValueError, match="needs a side and a round"):
        timing.in_turns({}, 3)
    with pytest.raises(ValueError, match="needs a side and a round"):
        timing.in_turns(sides, 0)
