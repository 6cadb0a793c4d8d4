"""What the search behind psi costs beside the network's own passes.

    python benchmarks/psi.py [--quick]

The probe asks 1,000 images of 28x28 for psi, 250 at a time, three times over: 50 steps from each of 5 starts, at both scales of the
logits. The bare loop makes the same passes with the same network, frozen and in evaluation mode, on batches of the same size, and does
nothing else. The network has two convolutions of stride 2, a hidden layer and random weights: small, so that what is not a pass shows.
Times are processor seconds.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator

import torch
from overhead import Log, bare_loop
from timing import interleaved, median_ratio, one_thread, result

import brinell as br
from brinell.core.draws import derive
from brinell.core.probe import View

NETWORK = "small_cnn(pool=(), strides=(2, 2), widths=(16, 32), hidden=(64,))"
STEPS, RESTARTS, IMAGES, TOGETHER = 50, 5, 1000, 250


def sides(steps: int, restarts: int) -> dict[str, Callable[[], object]]:
    """The probe and the bare loop.

    Raises:
        SystemExit: the network saw other passes than the search should make.
    """
    net = br.load_network(NETWORK, shape=(1, 28, 28), classes=10)
    x = derive(0, "benchmark psi", ids=range(IMAGES)).uniform(1, 28, 28).contiguous(memory_format=torch.channels_last)
    module = net.module.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        logits = module(x)
    ids = torch.arange(IMAGES)
    probe = br.parse(f"psi(steps={steps}, restarts={restarts}, scale=0.1, threat=ball(eps=0.1))")

    def shards() -> Iterator[torch.Tensor]:
        return itertools.cycle(ids.split(TOGETHER))

    def ask(net: Callable[[torch.Tensor], torch.Tensor], some: torch.Tensor) -> None:
        part = x[some]
        probe.observe(View(part, part, logits[some].argmax(1), some, logits[some], net=net), draws=derive(0, ids=some))

    log = Log()
    ask(log.watched(module), ids[:TOGETHER])
    seen = (sum(p.samples for p in log.passes), sum(p.samples * p.backwards for p in log.passes))
    expected = tuple(TOGETHER * count for count in probe.cost)
    if seen != expected:
        sys.exit(f"cannot measure: the network saw {seen} passes, {expected} were expected")
    print(f"  {seen[0]} forward and {seen[1]} backward passes for {TOGETHER} images", flush=True)
    ours, theirs = shards(), shards()
    return {"probe": lambda: ask(module, next(ours)), "bare": lambda: bare_loop(module, x[next(theirs)], log.passes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps and starts")
    quick = parser.parse_args().quick
    steps, restarts, rounds = (10, 1, 4) if quick else (STEPS, RESTARTS, 3 * IMAGES // TOGETHER)
    with one_thread():
        print(f"psi of {IMAGES} images, {steps} steps, {restarts} restarts, two scales", flush=True)
        seconds = interleaved(sides(steps, restarts), rounds, clock=time.process_time)
    ratios = [a / b for a, b in zip(seconds["probe"], seconds["bare"], strict=True)]
    print(f"  rounds: {', '.join(f'{ratio:.3f}' for ratio in ratios)}; bare {sorted(seconds['bare'])[rounds // 2]:.1f} s", flush=True)
    result("psi", overhead=median_ratio(seconds["probe"], seconds["bare"]))


if __name__ == "__main__":
    main()
