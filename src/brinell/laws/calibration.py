"""Calibration: all laws on all items, third-party ones too, and the known answers on a device; short enough to be run often."""

from __future__ import annotations

import time
from collections.abc import Callable

from brinell.core.component import get, index
from brinell.core.errors import SpecError
from brinell.engine.arguments import pick_device
from brinell.engine.calibration import Calibration
from brinell.engine.plan import environment
from brinell.laws.contract import check
from brinell.laws.known import KNOWN
from brinell.laws.law import Outcome
from brinell.laws.specimen import specimens


def calibrate(
    device: str = "auto", *, every: bool = False, say: Callable[[str, list[Outcome]], None] | None = None
) -> tuple[Calibration, list[Outcome]]:
    """Try what must hold: the laws on specimens of every item, and networks with known answers on the device.

    Laws run on the CPU; the known answers run through the whole lab on the device. Items of other packages are those announced
    as entry points of the group `brinell`; one that cannot be imported fails the law `imports`. Nothing is written.

    Arguments:
        every: try all specimens of every item (some minutes), not one in the middle (of norms, of severities).
        say: called with the name of each item, or known answer, and its outcomes, as soon as they are there.

    Raises:
        SpecError: there is no such device.
    """
    chosen, began = pick_device(device), time.perf_counter()
    outcomes: list[Outcome] = []
    for name in index():
        found = _of_item(name, every)
        outcomes += found
        if say:
            say(name, found)
    for answer in KNOWN:
        found = [_outcome(answer, str(chosen))]
        outcomes += found
        if say:
            say(answer.__name__, found)
    about = environment(chosen)
    failed = tuple(f"{outcome.law}: {outcome.spec}" for outcome in outcomes if not outcome.holds)
    versions = {name: about[name] for name in ("brinell", "torch", "python")}
    seconds = round(time.perf_counter() - began, 1)
    return Calibration(about["date"], about["device"], about["machine"], versions, len(outcomes) - len(failed), failed, seconds), outcomes


def _of_item(name: str, every: bool) -> list[Outcome]:
    try:
        cls = get(name)
    except SpecError as error:
        return [Outcome("imports", name, False, str(error))]
    tried = specimens(cls)
    middle = len(tried) // 2
    return [outcome for item in (tried if every else tried[middle : middle + 1]) for outcome in check(item)]


def _outcome(answer: Callable[[str], None], device: str) -> Outcome:
    try:
        answer(device)
    except Exception as error:  # a device, or a library on it, may raise anything; whatever it is, the answer is not the known one
        return Outcome(answer.__name__, device, False, f"{type(error).__name__}: {error}")
    return Outcome(answer.__name__, device, True)
