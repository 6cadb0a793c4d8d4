"""What a second worker gains: the same run on a Ray cluster of this machine with two single-threaded workers over one.

    python benchmarks/ray.py [--quick]

Start-up is left out: before the clock runs, every worker has done a piece. The run is PGD with 20 steps and five corruptions on
handwritten digits in three channels, cut into twelve shards; both sides must give the same numbers.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.pop(0)  # this file has the name of the package it measures; nothing else of this folder is needed before it is back

import ray

sys.path.insert(0, str(Path(__file__).resolve().parent))

from timing import median_ratio, result

import brinell as br
from brinell.engine.ray import Ray

NETWORK = Path(__file__).resolve().parent / "networks" / "small_cnn.safetensors"
CORRUPTIONS = ("gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression")
PERTURBATIONS = (*(f"{name}(severity=3)" for name in CORRUPTIONS), "pgd(steps=20, threat=ball(eps=0.2/255, norm=inf))")
COST = ("forwards", "backwards", "seconds")


def digits(n: int) -> br.Dataset:
    source = br.load_dataset("digits(side=32, split=train)", limit=n)  # of 1,078
    return br.Dataset.from_arrays(source.x().repeat(1, 3, 1, 1), source.y, classes=10, name="digits")


def timed(data: br.Dataset, shards: int, rounds: int, workers: int) -> tuple[list[float], list[dict[str, object]]]:
    """Seconds of each round on a cluster of so many workers, and the rows."""
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    executor, net, seconds, rows = Ray(), br.load_network(NETWORK), [], []
    try:
        for number in range(-1, rounds):  # the first one starts the workers
            lab = br.Lab(device="cpu", exact=True, batch_size=len(data) // shards, executor=executor)
            plan = lab.plan(net, data, PERTURBATIONS)
            began = time.perf_counter()
            rows = lab.run(plan).rows
            if number >= 0:
                seconds.append(time.perf_counter() - began)
    finally:
        ray.shutdown()
    return seconds, [{name: value for name, value in row.items() if name not in COST} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five, fewer samples")
    quick = parser.parse_args().quick
    data, rounds = digits(480 if quick else 1056), 2 if quick else 5
    one, rows = timed(data, 12, rounds, 1)
    two, twin = timed(data, 12, rounds, 2)
    if rows != twin or any(row["status"] != "ok" for row in rows):
        sys.exit("cannot measure: the sides give other numbers")
    print(f"one worker {[round(s, 2) for s in one]} s, two workers {[round(s, 2) for s in two]} s")
    result("ray", speedup=median_ratio(one, two))


if __name__ == "__main__":
    main()
