"""What corrupting images costs beside classifying them: 15 types x 5 severities of CIFAR-sized images through a ResNet-20.

    python benchmarks/corruption_audit.py             RESULT corruption_audit generation_over_forward= memory_ratio=
    python benchmarks/corruption_audit.py --quick     200 images instead of 10,000, for a first look
    python benchmarks/corruption_audit.py --images 2000

Batch by batch the images are corrupted and then classified, on one thread, and both are timed; generation_over_forward is the sum of
the times of one over that of the other, over all 75 cells. memory_ratio is the peak resident memory of measuring all 15 types at
severity 3 in a lab, of 10,000 samples over that of 1,000 (a small network; each a process of its own): images are made when they are
read, so that it says what the corruptions and the lab keep.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from corruptions import photographs
from timing import one_thread, result

HERE = Path(__file__).resolve().parent
BATCH = 256
SIZES = (1_000, 10_000)


def times(count: int) -> tuple[float, float]:
    """Seconds of corrupting and of classifying so many images in all 75 cells."""
    import torch

    import brinell as br
    from brinell.core.component import items
    from brinell.perturb.severity import Graded

    net = br.load_network(HERE / "networks" / "resnet20.safetensors")
    shots = torch.from_numpy(photographs(32, count)).permute(0, 3, 1, 2)
    types = [kind for kind in items(Graded).values() if kind.main and kind.family]
    total = [0.0, 0.0]
    print(f"{count} images, milliseconds an image, five severities{'corrupted':>14}{'classified':>14}")
    with one_thread():
        for kind in types:
            spent = [0.0, 0.0]
            for severity in range(1, 6):
                corruption = kind(severity=severity)
                for at in range(0, count, BATCH):
                    x = shots[at : at + BATCH].float() / 255
                    y, draws = torch.zeros(len(x), dtype=torch.int64), br.derive(0, "audit", ids=range(at, at + len(x)))
                    start = time.perf_counter()
                    z = corruption(None, x, y, draws=draws)
                    middle = time.perf_counter()
                    with torch.inference_mode():
                        net(z)
                    spent = [spent[0] + middle - start, spent[1] + time.perf_counter() - middle]
            total = [sum(pair) for pair in zip(total, spent, strict=True)]
            made, classified = (seconds / count / 5 * 1e3 for seconds in spent)
            print(f"  {kind.name:44}{made:20.4f}{classified:14.4f}", flush=True)
    return total[0], total[1]


def measure(n: int) -> int:
    """Measure n samples under all types in this process; its peak resident memory so far, in the unit of the operating system."""
    import numpy as np
    import torch
    from torch import Tensor

    import brinell as br
    from brinell.core.component import items
    from brinell.perturb.severity import Graded

    shots = torch.from_numpy(photographs(32, 512)).permute(0, 3, 1, 2)

    def made(ids: np.ndarray) -> Tensor:
        return shots[torch.from_numpy(ids % len(shots))].float() / 255

    ids, classes = np.arange(n), tuple("0123456789")
    data = br.Dataset("photographs", (3, 32, 32), ids % 10, ids, classes, made, content="crops of two photographs")
    types = [f"{name}(severity=3)" for name, kind in items(Graded).items() if kind.main and kind.family]
    with one_thread():
        table = br.Lab(device="cpu").measure(br.load_network(HERE / "networks" / "small_cnn.safetensors"), data, types, ["accuracy"])
    if table.select(status="failed") or any(len(table.samples("net", spec)["id"]) != n for spec in types):
        sys.exit("cannot measure: cells failed or samples are missing")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak(n: int) -> int:
    """The peak of a fresh process. This one stays small: a process starts with the peak of the one that started it."""
    done = subprocess.run((sys.executable, __file__, "--measure", str(n)), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"cannot measure {n} samples")
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 images and 200 against 2,000 samples")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(measure(given.measure))
        return
    few, many = (peak(n // 5 if given.quick else n) for n in SIZES)
    print(f"peaks of memory, fewer and more samples: {few}, {many} (KiB on Linux)")
    made, classified = times(200 if given.quick else given.images)
    result("corruption_audit", generation_over_forward=made / classified, memory_ratio=many / few)


if __name__ == "__main__":
    main()
