"""How every benchmark measures: the sides take turns, one thread each, and the median of the ratios is reported."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def interleaved(
    sides: Mapping[str, Callable[[], object]], repeats: int, *, warmup: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each side in each round; in a round every side runs once, and each round another side begins.

    What else a machine does changes slowly, so the sides of one round meet the same conditions and their ratio is worth more
    than either time.

    Arguments:
        sides: what to time, by name. repeats: rounds that count. warmup: rounds before them that do not. clock: in seconds;
            `time.process_time` leaves out what other programs took.

    Raises:
        ValueError: there is no side or no round.
    """
    if not sides or repeats < 1:
        raise ValueError(f"interleaved needs a side and a round; got {len(sides)} sides and {repeats} rounds")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(-warmup, repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            sides[name]()
            if number >= 0:
                seconds[name].append(clock() - start)
    return seconds


def in_turns(
    sides: Mapping[str, Callable[[], Iterator[object]]], repeats: int, *, warmup: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each side in each round, as `interleaved` gives them, but the sides take turns within a round, a step at a time.

    A processor can change its speed by a tenth within seconds. Where a step takes part of a second, all sides get the same of it.

    Arguments:
        sides: by name, what makes an iterator of the steps of one round; all it does between two steps is timed, and what it does after the
            last one too. repeats, warmup, clock: as for `interleaved`.

    Raises:
        ValueError: there is no side or no round.
    """
    if not sides or repeats < 1:
        raise ValueError(f"in_turns needs a side and a round; got {len(sides)} sides and {repeats} rounds")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names, turn, over = list(sides), 0, object()
    for number in range(-warmup, repeats):
        going, spent = {name: iter(sides[name]()) for name in names}, dict.fromkeys(names, 0.0)
        while going:
            first, turn = turn % len(names), turn + 1
            for name in [name for name in names[first:] + names[:first] if name in going]:
                start = clock()
                ended = next(going[name], over) is over
                spent[name] += clock() - start
                if ended:
                    del going[name]
        if number >= 0:
            for name in names:
                seconds[name].append(spent[name])
    return seconds


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median over rounds of a / b: how many times as long a takes as b.

    Raises:
        ValueError: the two have different numbers of rounds, or none.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"median_ratio needs as many rounds of both sides, at least one; got {len(a)} and {len(b)}")
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, BLAS and OpenMP while inside: two on a busy machine mostly wait for each other."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def result(name: str, **values: Any) -> None:
    """Print `RESULT name key=value ...`, the last line of a benchmark; numbers are rounded to four digits.

    Raises:
        ValueError: a value holds white space, which separates the entries.
    """
    entries = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    odd = [text for text in (name, *entries.values()) if not text or text.split() != [text]]
    if odd:
        raise ValueError(f"a RESULT line is split at white space; rewrite {odd}")
    print(" ".join(["RESULT", name, *(f"{key}={text}" for key, text in entries.items())]), flush=True)
