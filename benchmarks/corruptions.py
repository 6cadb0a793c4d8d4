"""Speed of the 15 main corruptions at severity 3, beside imagecorruptions, the published corruptions as a NumPy package.

    python benchmarks/corruptions.py             RESULT corruptions speedup_32= speedup_224= no_glass_32= no_glass_224= slowest=
    python benchmarks/corruptions.py --quick     one round, for a first look
    python benchmarks/corruptions.py --types pixelate snow    some of them only

Both sides corrupt the same 8-bit crops of photographs in one process on one thread, in turns; times are per image. brinell takes
its images as one batch, imagecorruptions, which knows no batches, one by one, each side for about as long as the other (a side
that is done before its time slice ends would gain on a busy machine). imagecorruptions has only the ImageNet parameters,
which cost less at 32 pixels than those of CIFAR would cost it. speedup_* is the median over rounds of the ratio of the total
times; no_glass_* leaves glass blur out, a Python loop over pixels on the other side. slowest is the smallest ratio of any type.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import peers

BATCH = {32: 128, 224: 8}
TURN = 0.1  # seconds, about, that a side works in a round


def photographs(side: int, count: int):
    """(count, side, side, 3) uint8 crops of two photographs."""
    import numpy as np
    from sklearn.datasets import load_sample_images

    pictures, rng, crops = load_sample_images().images, np.random.default_rng(side), []
    for at in range(count):
        picture = pictures[at % 2]
        top, left = (rng.integers(0, length - side) for length in picture.shape[:2])
        crops.append(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    return np.stack(crops)


def peer() -> Callable[..., object]:
    """`imagecorruptions.corrupt`, mended where newer libraries have dropped what it calls."""
    import warnings

    import cv2
    import numpy as np
    import skimage.filters

    cv2.setNumThreads(1)
    if not hasattr(np, "float_"):
        np.float64 = np.float64  # type: ignore[attr-defined]
    blur = skimage.filters.gaussian

    def gaussian(image, *arguments, multichannel=False, **named):
        return blur(image, *arguments, **({"channel_axis": -1} if multichannel else {}), **named)

    skimage.filters.gaussian = gaussian
    warnings.simplefilter("ignore")
    try:
        import pkg_resources  # noqa: F401
    except ImportError:
        import types
        from importlib import resources

        module = types.ModuleType("pkg_resources")
        module.resource_filename = lambda package, name: str(resources.files(package.partition(".")[0]) / name)  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = module
    from imagecorruptions import corrupt

    return corrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--types", nargs="+", help="some of the types; without it all 15")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    peers.enter("imagecorruptions")

    import torch
    from timing import interleaved, median_ratio, one_thread, result

    from brinell.core.component import items
    from brinell.core.draws import derive
    from brinell.perturb.severity import Graded

    corrupt = peer()
    types = {name: kind(severity=3) for name, kind in items(Graded).items() if kind.main and kind.family}
    if chosen.types:
        types = {name: types[name] for name in chosen.types}
    rounds = 1 if chosen.quick else chosen.rounds
    found, slowest = {}, {}

    def ours(times: int, corruption: Graded) -> None:
        for _ in range(times):
            corruption(None, x, y, draws=draws)

    def theirs(times: int, name: str) -> None:
        for at in range(times):
            corrupt(shots[at % len(shots)], corruption_name=name, severity=3)

    def turns(work: Callable[[int], None]) -> int:
        """How often a side does its work in a round."""
        work(1)
        start = time.perf_counter()
        work(1)
        return max(1, round(TURN / (time.perf_counter() - start)))

    for side in (32, 224):
        shots = photographs(side, BATCH[side])
        x = torch.from_numpy(shots).permute(0, 3, 1, 2).contiguous().float() / 255
        y, draws = torch.zeros(len(x), dtype=torch.int64), derive(0, "benchmark", ids=range(len(x)))
        seconds = {}
        print(f"{side} pixels, milliseconds an image{'brinell':>14}{'imagecorruptions':>20}{'ratio':>9}")
        with one_thread():
            for name, corruption in types.items():
                sides = {"ours": partial(ours, corruption=corruption), "theirs": partial(theirs, name=name)}
                times = {who: turns(work) for who, work in sides.items()}
                spent = interleaved({who: partial(work, times[who]) for who, work in sides.items()}, rounds)
                mine = [t / times["ours"] / len(x) * 1e3 for t in spent["ours"]]
                other = [t / times["theirs"] * 1e3 for t in spent["theirs"]]
                seconds[name] = mine, other
                ratio = slowest[f"{name}@{side}"] = median_ratio(other, mine)
                print(f"  {name:26}{statistics.median(mine):18.4f}{statistics.median(other):20.4f}{ratio:9.1f}", flush=True)
        for label, left_out in (("speedup", ()), ("no_glass", ("glass_blur",))):
            both = [[sum(t) for t in zip(*(seconds[n][k] for n in types if n not in left_out), strict=True)] for k in (0, 1)]
            found[f"{label}_{side}"] = median_ratio(both[1], both[0])
    worst = min(slowest, key=slowest.__getitem__)
    result("corruptions", **found, slowest=slowest[worst], slowest_type=worst)
    return 0


if __name__ == "__main__":
    sys.exit(main())
