"""What reading the inside of a network costs beside its forward pass: all probes of layers over the bare forward pass.

    python benchmarks/probes.py [--quick] [--images 10000]

ResNet-20, all 19 ReLU layers, batches of 256 on one thread, in processor seconds. The bare side passes the images through the network and
does nothing else. The other side records every layer, lets each probe observe every batch, adds up what they keep, and takes the
readings: selectivity with its null, sparsity, dimensionality of pooled activations with two intrinsic dimensions from a sample of 2,000;
and, as a second case, the dimensionality of whole maps by a sketch of 256 sums as well. These sides take turns batch by batch, so that the
processor's speed is the same for all; the lab, which also writes everything to disk, takes turns with the bare side as a whole. All sides
keep the memory they have freed (`engine.allocator`), as the command line does: otherwise up to a third of the time goes into asking the
system for the same pages again, by chance on one side and not on the other. Memory: the peak of a process that reads 40,000 images, made
when they are read, over that of one that reads 10,000.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from timing import in_turns, interleaved, median_ratio, one_thread, result
from torch import Tensor

import brinell as br
from brinell.core.measurement import Reading
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Probe
from brinell.core.tally import Tallies, Total
from brinell.engine.allocator import keep_freed_memory
from brinell.engine.observing import observe_shard

NETWORK = Path(__file__).resolve().parent / "networks" / "resnet20.safetensors"
POOLED = ("class_selectivity", "sparsity", "dimensionality(sample=2000)")
FLAT = (*POOLED, "dimensionality(flat=256)")
BATCH = 256
SIZES = (10_000, 40_000)


def made(ids: np.ndarray) -> Tensor:
    """Handwritten digits in three channels under uniform noise, so that no two images are the same."""
    digits = br.load_dataset("digits(side=32)").x()
    return 0.9 * digits[torch.from_numpy(ids % len(digits))] + 0.1 * br.derive(0, "probes", ids=ids).uniform(3, 32, 32)


def prepared(texts: tuple[str, ...], net: br.Network, data: br.Dataset) -> list[Probe]:
    probes = []
    for text in texts:
        probe = br.parse(text, Probe)
        probes.append(probe.prepared(probe.prepare(net, data, draws=br.derive(0, "prepare", ids=data.ids))))
    return probes


def reading(net: br.Network, data: br.Dataset, probes: list[Probe]) -> Iterator[list[Reading]]:
    """Nothing after each batch, then every reading of every probe of the clean samples.

    Raises:
        SystemExit: a probe could not observe.
    """
    total: Total[Tallies] = Total()
    for tallies in observed(net, data, probes):
        total.add(tallies)
        yield []
    whole = total.sum()
    yield [reading for probe in probes for reading in probe.read(whole.parts[probe.spec()])] if whole else []


def observed(net: br.Network, data: br.Dataset, probes: list[Probe]) -> Iterator[Tallies]:
    clean = br.parse("clean", Perturbation)
    for positions in data.shards(BATCH):
        for _, shard in observe_shard(net, data, positions, [clean], probes, seed=0, device=torch.device("cpu")):
            if shard.failure or shard.probe_failures:
                sys.exit(f"cannot measure: {shard.failure or shard.probe_failures}")
            yield Tallies(shard.tallies)


def peak(n: int) -> int:
    """Peak resident memory of a fresh process that reads n images."""
    done = subprocess.run((sys.executable, __file__, "--measure", str(n)), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"cannot measure {n} samples")
    return int(done.stdout)


def measure(n: int) -> int:
    """Read n images in this process; its peak resident memory so far, in the unit of the operating system."""
    net, rows = br.load_network(NETWORK).frozen_copy(torch.device("cpu")), np.arange(n)
    data = br.Dataset("digits under noise", (3, 32, 32), rows % 10, rows, tuple("0123456789"), made, content="digits under noise")
    with one_thread():
        *_, readings = reading(net, data, prepared(FLAT, net, data))
    print(f"{n} images, {len(readings)} readings", file=sys.stderr)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2,500 images, one round")
    parser.add_argument("--images", type=int, default=0, help="default: 10,000")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(measure(given.measure))
        return
    keep_freed_memory()
    n, rounds = given.images or (2_500 if given.quick else 10_000), 1 if given.quick else 3
    few, many = map(peak, SIZES)  # while this process is small: a process starts with the peak of the one that started it
    net = br.load_network(NETWORK).frozen_copy(torch.device("cpu"))
    x = made(np.arange(n))
    with one_thread():
        with torch.no_grad():
            y = torch.cat([net(part).argmax(1) for part in x.split(BATCH)])
        data = br.Dataset.from_arrays(x, y, classes=10)
        pooled, flat = (prepared(texts, net, data) for texts in (POOLED, FLAT))

        def bare() -> Iterator[None]:
            for part in x.split(BATCH):
                with torch.inference_mode():  # left between two turns: the other sides are not in it
                    net(part.contiguous(memory_format=torch.channels_last))
                yield

        steps = {"bare": bare, "pooled": lambda: reading(net, data, pooled), "flat": lambda: reading(net, data, flat)}
        seconds = in_turns(steps, rounds, warmup=0 if given.quick else 1, clock=time.process_time)
        ratios = {name: median_ratio(seconds[name], seconds["bare"]) for name in ("pooled", "flat")}
        wholes = {"bare": lambda: list(bare()), "lab": lambda: br.Lab(device="cpu").measure(net, data, (), POOLED)}
        apart = interleaved(wholes, rounds, warmup=0, clock=time.process_time)
        ratios["lab"] = median_ratio(apart["lab"], apart["bare"])
    print(f"{n} images: bare {statistics.median(seconds['bare']):.1f} s; peaks of {SIZES[0]} and {SIZES[1]}: {few}, {many} (KiB on Linux)")
    result(
        "probes", probes_over_forward=ratios["pooled"], flat_over_forward=ratios["flat"], lab_over_forward=ratios["lab"],
        memory_ratio=many / few,
    )  # fmt: skip


if __name__ == "__main__":
    main()
