"""CROWN's linear bounds: ours against auto_LiRPA's, on the same networks, samples and ball.

    python benchmarks/crown.py --source FOLDER [--quick]

FOLDER holds a checkout of https://github.com/Verified-Intelligence/auto_LiRPA; its releases on the package index do not go with a
present torch. Both sides compute in float32 without slack for rounding, ours with the tracing of the network, theirs without
(their module is made once). Every network has random weights; both sides' bounds have to agree to 1e-4 of their mean width.
`RESULT` gives the median over networks of ours / theirs, 1 or less is faster, and the largest difference of two bounds, relative to
the mean width: above 0 ours is the tighter one.
"""

import argparse
import importlib
import math
import statistics
import sys
import warnings
from pathlib import Path

CASES = [
    ("mlp(widths=(128, 128))", (1, 8, 8), 16, 0.05), ("mlp(widths=(256, 256, 256))", (1, 28, 28), 8, 0.02),
    ("small_cnn(pool=())", (1, 8, 8), 8, 0.01), ("small_cnn", (1, 8, 8), 8, 0.01),
    ("small_cnn(widths=(16, 32), strides=(1, 2), pool=(), hidden=(64,))", (1, 14, 14), 4, 0.01),
    ("resnet20(width=4, shortcut=B)", (3, 8, 8), 2, 0.002),
]  # fmt: skip
AGREE = 1e-4


def measure(spec, shape, n, eps, rounds):
    """(seconds ratio, loosest and tightest difference of bounds over the mean width) of one network."""
    import torch

    import brinell as br
    from brinell.certify.linear_relaxation import linear_bounds
    from brinell.core.threat import Ball

    lirpa = importlib.import_module("auto_LiRPA")
    net = br.load_network(spec, shape=shape, classes=10).module.eval().requires_grad_(False)
    x, ball = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)), Ball(eps=eps)
    low, high = ball.box(x)
    bounded = lirpa.BoundedModule(net, x, device="cpu", verbose=False)
    batch = lirpa.BoundedTensor(x, lirpa.PerturbationLpNorm(norm=math.inf, x_L=low, x_U=high))

    def theirs():
        with torch.no_grad():
            return bounded.compute_bounds(x=(batch,), method="CROWN")

    def ours():
        return linear_bounds(net, x, ball, rounding=False)

    (lower, upper), (lower_, upper_) = ours(), theirs()
    width = (upper_ - lower_).mean()
    gains = torch.cat(((lower - lower_), (upper_ - upper))) / width
    from timing import interleaved, median_ratio

    seconds = interleaved({"ours": ours, "theirs": theirs}, rounds)
    return median_ratio(seconds["ours"], seconds["theirs"]), gains.min().item(), gains.max().item()


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, help="a checkout of auto_LiRPA; without, one that can be imported")
    parser.add_argument("--quick", action="store_true", help="the three smallest networks, one round")
    given = parser.parse_args()
    from peers import enter

    enter("auto_lirpa")
    warnings.simplefilter("ignore")
    if given.source:
        sys.path.insert(0, str(given.source.resolve()))
    try:
        importlib.import_module("auto_LiRPA")
    except ImportError as error:
        sys.exit(f"auto_LiRPA cannot be imported ({error}); give --source FOLDER with a checkout of its repository")
    from timing import one_thread, result

    found = []
    with one_thread():
        for spec, shape, n, eps in CASES[:1] + CASES[2:4] if given.quick else CASES:
            try:
                found.append(measure(spec, shape, n, eps, 1 if given.quick else 3))
            except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
                print(f"{spec}: auto_LiRPA cannot bound it ({type(error).__name__}: {str(error)[:100]})", flush=True)
                continue
            print("{:70} ours / theirs {:.2f}   bounds differ by {:.1e} to {:.1e} widths".format(spec, *found[-1]), flush=True)
    if not found:
        sys.exit("no network could be measured on both sides")
    ratios, loosest, tightest = zip(*found, strict=True)
    result("crown", seconds_ratio=statistics.median(ratios), slowest=max(ratios), loosest=min(loosest), tightest=max(tightest))
    if min(loosest) < -AGREE:
        sys.exit(f"a bound of ours is looser by {-min(loosest):.1e} mean widths")


if __name__ == "__main__":
    main()
