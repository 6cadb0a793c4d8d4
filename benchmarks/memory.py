"""Does measuring more samples take more memory? Peak resident memory of measuring 10,000 samples over that of 1,000.

    python benchmarks/memory.py [--quick]

Every measurement is a process of its own: clean samples, a corruption and two steps of PGD, read by every probe that takes few passes
of its own, on images that are made when they are read: handwritten digits in three channels under uniform noise. The labels are what
the network says of them, so that every sample is attacked.
"""

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from timing import one_thread, result

SIZES = (1_000, 10_000)
NETWORK = Path(__file__).resolve().parent / "networks" / "small_cnn.safetensors"
PROBES = (
    "accuracy", "calibration", "class_selectivity", "diagnostics", "examples", "sparsity", "dimensionality(sample=500)", "similarity",
)  # fmt: skip
PERTURBATIONS = ("gaussian_noise(severity=3)", "pgd(steps=2, threat=ball(eps=2/255, norm=inf))")


def measure(n: int) -> int:
    """Measure n samples in this process; its peak resident memory so far, in the unit of the operating system."""
    import numpy as np
    import torch
    from torch import Tensor

    import brinell as br

    digits = br.load_dataset("digits(side=32)").x()

    def made(ids: np.ndarray) -> Tensor:
        noise = br.derive(0, "memory", ids=ids).uniform(3, 32, 32)
        return 0.9 * digits[torch.from_numpy(ids % len(digits))] + 0.1 * noise

    net = br.load_network(NETWORK)
    rows = np.arange(n)
    with one_thread():
        y = np.concatenate([net(made(part)).detach().argmax(1).numpy() for part in np.array_split(rows, n // 100)])
        data = br.Dataset("digits under noise", (3, 32, 32), y, rows, tuple("0123456789"), made, content="digits under noise")
        table = br.Lab(device="cpu").measure(net, data, PERTURBATIONS, PROBES)
    failed = sorted({f"{row['perturbation']}, {row['probe']}: {row['reason']}" for row in table.select(status="failed")})
    if failed or len(table.samples("net", PERTURBATIONS[1])["id"]) != n:
        sys.exit(f"cannot measure: {'; '.join(failed) or 'samples are missing'}")
    left = table.value("accuracy", perturbation=PERTURBATIONS[1])
    print(f"{n} samples, {left:.0%} withstand the attack; probes {', '.join(PROBES)}", file=sys.stderr)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak(n: int) -> int:
    """The peak of a fresh process. This one stays small: a process starts with the peak of the one that started it."""
    done = subprocess.run((sys.executable, __file__, "--measure", str(n)), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"cannot measure {n} samples")
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(measure(given.measure))
        return
    few, many = zip(*(tuple(map(peak, SIZES)) for _ in range(1 if given.quick else 3)), strict=True)
    print(f"peaks of {SIZES[0]} samples: {few}; of {SIZES[1]}: {many} (KiB on Linux)")
    result("memory", ratio=statistics.median(b / a for a, b in zip(few, many, strict=True)))


if __name__ == "__main__":
    main()
