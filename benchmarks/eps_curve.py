"""Passes that one run over several budgets saves, against a run for each: `eps_curve` beside its own attack.

    python benchmarks/eps_curve.py          RESULT eps_curve strongest_robust= strongest_natural= pgd_robust= pgd_natural=
    python benchmarks/eps_curve.py --quick  fewer images, a smaller budget

The networks are the two ResNet-20 of benchmarks/networks, the balls Linf 2/255, 4/255 and 8/255 (natural: 0.5/255, 1/255 and 2/255, where
samples still withstand). A figure is passes an image (forwards and backwards) of the separate runs over those of the one; robust
accuracy at each eps is printed for both. The exit code is 1 where the curve is more than half a point above the separate runs.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BALLS = {"robust": (2 / 255, 4 / 255, 8 / 255), "natural": (0.5 / 255, 1 / 255, 2 / 255)}


def compared(net, x, y, attack, radii, draws):
    """Robust accuracies and passes an image of both sides."""
    import torch

    from brinell.core.network import Counted
    from brinell.core.perturbation import points
    from brinell.core.threat import Ball
    from brinell.perturb.eps_curve import EpsCurve

    with torch.no_grad():
        clean = net(x).argmax(1) == y

    def run(item):
        counted = Counted(net)
        z = points(item(counted, x, y, draws=draws))
        with torch.no_grad():
            wrong = net(z).argmax(1) != y
        return z, wrong, sum(counted.reset()) / len(x)

    separate, passes = [], 0.0
    for eps in radii:
        _, wrong, cost = run(attack.within(Ball(eps=eps)))
        separate.append(float((clean & ~wrong).double().mean()))
        passes += cost
    z, wrong, cost = run(EpsCurve(attack=attack.within(Ball(eps=radii[-1])), eps=radii[:-1]))
    together = [float((clean & ~(wrong & Ball(eps=eps).contains(x, z))).double().mean()) for eps in radii]
    return separate, together, passes, cost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--passes", type=int, default=1000, help="budget of strongest")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "cifar10-jpeg" / "test.parquet")
    chosen = parser.parse_args()
    if not chosen.data.exists():
        print(f"{chosen.data} is not there; give --data")
        return 1
    import torch

    import brinell as br

    torch.set_num_threads(1)
    images, budget = (16, 300) if chosen.quick else (chosen.images, chosen.passes)
    data = br.load_dataset(f"parquet({str(chosen.data)!r})", limit=images)
    draws, found, worst = br.derive(0, "benchmark", ids=data.ids), [], 0.0
    for spec in (f"strongest(passes={budget})", "pgd(steps=40)"):
        for kind, file in (("robust", "resnet20_robust"), ("natural", "resnet20")):
            net = br.load_network(HERE / "networks" / f"{file}.safetensors").frozen_copy()
            separate, together, before, after = compared(net, data.x(), data.labels(), br.parse(spec), BALLS[kind], draws)
            accuracies = [", ".join(f"{value:.4f}" for value in side) for side in (separate, together)]
            print(f"{spec}, {kind}, {len(data)} images, eps {', '.join(f'{eps * 255:g}/255' for eps in BALLS[kind])}: separate "
                  f"{accuracies[0]} with {before:.1f} passes an image, one run {accuracies[1]} with {after:.1f}", flush=True)  # fmt: skip
            worst = max(worst, *(b - a for a, b in zip(separate, together, strict=True)))
            found.append(f"{spec.partition('(')[0]}_{kind}={before / after:.2f}")
    print(f"RESULT eps_curve {' '.join(found)}")
    return int(worst > 0.005)


if __name__ == "__main__":
    sys.exit(main())
