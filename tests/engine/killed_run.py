"""Runs one small plan in processes of its own that are killed on the way; started by `test_kill.py`, prints what happened as JSON.

killed_run.py DIR writes N      DIR/k, k = 1, 1 + N, ...: a process dies at its k-th write, another one at its second, a third one finishes;
                                DIR/plain: undisturbed
killed_run.py DIR times KILLS   DIR/0, DIR/1, ...: up to twelve processes are killed from outside after random times, one finishes; so many
                                directories that KILLS processes were killed at work; DIR/plain: undisturbed
killed_run.py DIR together      three processes at once, one of them with another batch size; DIR-plain: undisturbed
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import brinell as br
from brinell.core.component import items

PROBES, SUMMARIES = ["accuracy", "class_selectivity", "calibration"], ["bound"]
PERTURBATIONS = ["normal_noise(threat=ball(norm=2, eps=0.5))", "pgd(steps=3, threat=ball(eps=0.1))"]


def measure(place: str, data: br.Dataset, nets: dict[str, br.Network], batch_size: int = 16) -> None:
    br.Lab(place, batch_size=batch_size, device="cpu").measure(nets, data, PERTURBATIONS, PROBES, SUMMARIES)


def in_a_process(work: Callable[[], None]) -> int:
    """Start `work` in a copy of this process."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying(work: Callable[[], None], write: int, after: bool) -> Callable[[], None]:
    """`work` that dies when it puts its file number `write` into place, right before or right after."""
    rename, count = Path.replace, iter(range(1, 10_000))

    def replace(self: Path, target: Path) -> Path:
        last = next(count) == write
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        moved = rename(self, target)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    def armed() -> None:
        Path.replace = replace
        work()

    return armed


def killed_at_writes(place: str, work: Callable[[str], None], stride: int) -> list[int]:
    """Directory k: a process dies at its k-th write, the next one at its second, the third one finishes."""
    statuses: list[int] = []
    for write in range(1, 100, stride):
        here = f"{place}/{write}"
        first = status(in_a_process(dying(lambda here=here: work(here), write, after=bool(write % 2))))
        second = 0 if first == 0 else status(in_a_process(dying(lambda here=here: work(here), 2, after=bool(write % 3))))
        third = 0 if second == 0 else status(in_a_process(lambda here=here: work(here)))
        statuses += [first, second, third]
        if first == 0:
            break
    return statuses


def killed_at_any_time(place: str, work: Callable[[str], None], kills: int) -> list[int]:
    chance, began, statuses = random.Random(0), time.monotonic(), []
    work(f"{place}/plain")
    long = time.monotonic() - began
    while statuses.count(-signal.SIGKILL) < kills:
        here = f"{place}/{statuses.count(0)}"
        for _ in range(12):
            child = in_a_process(lambda here=here: work(here))
            time.sleep(chance.uniform(0, long / 3))
            os.kill(child, signal.SIGKILL)
            if status(child) == 0:
                break  # it was faster
            statuses.append(-signal.SIGKILL)
        statuses.append(status(in_a_process(lambda here=here: work(here))))
    return statuses


def main(place: str, how: str, number: str = "0") -> None:
    torch.set_num_threads(1)
    data = br.load_dataset("digits(side=8)", limit=32 if how != "together" else 96)
    shape, classes = data.shape, len(data.classes)
    nets = {"mlp": br.load_network("mlp(widths=(16,))", shape=shape, classes=classes, seed=1)}
    if how == "together":
        nets["cnn"] = br.load_network("small_cnn(widths=(4, 8))", shape=shape, classes=classes, seed=2)
    items()  # everything is imported once, here

    def work(place: str, batch_size: int = 16) -> None:
        measure(place, data, nets, batch_size)

    if how == "writes":
        work(f"{place}/plain")
        statuses = killed_at_writes(place, work, int(number))
    elif how == "times":
        statuses = killed_at_any_time(place, work, int(number))
    elif how == "together":
        work(f"{place}-plain")
        children = [in_a_process(lambda size=size: work(place, size)) for size in (16, 16, 7)]
        statuses = [status(child) for child in children]
    else:
        raise SystemExit(f"{how} is not known")
    sys.stdout.write(json.dumps(statuses))


if __name__ == "__main__":
    main(*sys.argv[1:])
