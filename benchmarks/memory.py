"""Does measuring more samples take more memory? Peak resident memory of measuring 10,000 samples over that of 1,000.

    python benchmarks/memory.py [--quick]

Every measurement is a process of its own: clean samples, a corruption and two steps of PGD, read by every probe there is, on
images that are drawn when they are read. The goal of PGD has no end, so that every sample takes both steps.
"""

import argparse
import resource
import statistics
import subprocess
import sys

from timing import one_thread, result

SIZES = (1_000, 10_000)
PERTURBATIONS = ("gaussian_noise(severity=3)", "pgd(goal=maximise(cross_entropy), steps=2, threat=ball(eps=8/255, norm=inf))")


def measure(n: int) -> int:
    """Measure n samples in this process; its peak resident memory so far, in the unit of the operating system."""
    import numpy as np
    from torch import Tensor

    import brinell as br
    from brinell.core.component import items
    from brinell.core.probe import Certifier, Probe

    def drawn(ids: np.ndarray) -> Tensor:
        return br.derive(0, "memory", ids=ids).uniform(3, 32, 32)

    y = np.arange(n) % 10
    data = br.Dataset("drawn", (3, 32, 32), y, np.arange(n), tuple("0123456789"), drawn, content="drawn")
    probes = [name for name, cls in items(Probe).items() if not issubclass(cls, Certifier)]
    net = br.load_network("small_cnn", shape=data.shape, classes=10)
    with one_thread():
        table = br.Lab(device="cpu").measure(net, data, PERTURBATIONS, probes)
    failed = sorted({f"{row['perturbation']}, {row['probe']}: {row['reason']}" for row in table.select(status="failed")})
    if failed or len(table.samples("net", PERTURBATIONS[1])["id"]) != n:
        sys.exit(f"cannot measure: {'; '.join(failed) or 'samples are missing'}")
    print(f"{n} samples, probes {', '.join(probes)}", file=sys.stderr)
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
