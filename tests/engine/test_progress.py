"""What a run says while it works."""

import io
import re

import pytest

import brinell as br
from brinell.engine.progress import Bar, Lines, Shown, for_stream
from brinell.engine.store import Store


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("brinell.engine.progress.time.monotonic", clock)
    return clock


def said(stream) -> list[str]:
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


def test_lines_tell_the_share_and_the_time_left(clock):
    stream = io.StringIO()
    lines = Lines(stream, every=10)
    lines.start("measuring", 100, done=20)
    for _ in range(4):
        clock.now += 4
        lines.advance(10, "a: clean")
    clock.now += 1000
    lines.advance(40)
    lines.stop()
    lines.stop()
    assert said(stream) == [
        "measuring: started, 20% done before",
        "measuring: 50%, about 20 s left (a: clean)",  # 30 units in 12 s, 50 units to go
        "measuring: 100%, about 0 s left",
        "measuring: finished in 17 min",
    ]


def test_an_interrupted_run_is_not_called_finished(clock):
    stream = io.StringIO()
    lines = Lines(stream)
    with pytest.raises(KeyboardInterrupt), Shown(lines):
        lines.start("measuring", 10)
        lines.advance(2)
        clock.now += 5
        raise KeyboardInterrupt
    assert said(stream) == ["measuring: started", "measuring: stopped at 20%, in 5 s"]


def test_a_bar_only_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    assert isinstance(for_stream(stream), Lines)
    stream.isatty = lambda: True  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(for_stream(stream), Bar)


def test_a_bar_can_be_driven(capsys):
    bar = Bar()
    bar.advance(1)
    bar.start("measuring", 10, 5)
    bar.advance(5, "[red]net[/red]: pgd")
    bar.say("[bold]as it is")
    bar.stop()
    bar.stop()
    assert "[bold]as it is" in capsys.readouterr().err


class Watching:
    def __init__(self):
        self.total = self.done = 0.0
        self.stopped = 0

    def start(self, title, total, done=0.0):
        self.total, self.done = total, done

    def advance(self, amount, text=""):
        self.done += amount

    def say(self, text): ...

    def stop(self):
        self.stopped += 1


def test_progress_ends_at_its_total_also_after_an_interruption(data, make_net, tmp_path, monkeypatch):
    arguments = {"a": make_net(seed=1), "b": make_net(seed=2)}, data, ["fgsm", "pgd(steps=3)"]
    write, count = Store.write_tensors, iter(range(100))

    def interrupted(self, path, *rest, **how):
        if next(count) == 8:
            raise KeyboardInterrupt
        write(self, path, *rest, **how)

    first = Watching()
    with monkeypatch.context() as patch:
        patch.setattr("brinell.engine.store.Store.write_tensors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            br.Lab(tmp_path, batch_size=20, progress=first).measure(*arguments)
    assert 0 < first.done < first.total and first.stopped == 1
    second = Watching()
    br.Lab(tmp_path, batch_size=20, progress=second).measure(*arguments)
    assert second.done == second.total == first.total == 2 * 60 * (1 + 3 + 8) and second.stopped == 1
    third = Watching()
    br.Lab(tmp_path, batch_size=20, progress=third).measure(*arguments)
    assert third.done == third.total
