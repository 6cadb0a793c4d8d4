"""Forward passes that an adaptive surface saves against the full grid, and how far its boundary lies from the full grid's.

    python benchmarks/surfaces.py [--quick]

Trained networks and test images of CIFAR-10, several planes of 41 x 41 points. `RESULT` gives `pass_ratio`, grid points over the forward
passes that the adaptive surfaces took, in all; `contour_error`, the 95 % quantile over surfaces of the Hausdorff distance between the two
lines S = 0, in cells of the grid, and `contour_worst`, its maximum; `stated_kept`, the share of surfaces (and heights) whose largest
interpolation error is within the one that was stated.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "cifar10-jpeg" / "test.parquet"
NETWORKS = ("small_cnn", "resnet20", "resnet20_robust")
PLANES = (
    "surface", "surface(plane=random)", "surface(ball=ball(norm=2, eps=3.0))", "surface(ball=ball(eps=8/255))",
    "surface(plane=images)",
)  # fmt: skip


def farthest(a, b):
    """How far any end or middle of the segments (k, 4) of one line lies from the other line."""
    points = np.concatenate((a[:, :2], a[:, 2:], (a[:, :2] + a[:, 2:]) / 2))
    start, along = b[:, :2], b[:, 2:] - b[:, :2]
    share = np.clip(((points[:, None] - start) * along).sum(2) / np.maximum((along**2).sum(1), 1e-300), 0, 1)
    return float(np.sqrt(((points[:, None] - start - share[..., None] * along) ** 2).sum(2)).min(1).max())


def hausdorff(a, b):
    """0 where both lines are empty, infinite where one is."""
    if not len(a) or not len(b):
        return 0.0 if len(a) == len(b) else np.inf
    return max(farthest(a, b), farthest(b, a))


def compare(net, data, spec, images):
    """For each image of one plane: passes, distance of the boundaries in cells, and whether each stated error was kept."""
    import torch

    from brinell.core.component import parse
    from brinell.core.draws import derive
    from brinell.core.network import Counted
    from brinell.core.probe import View
    from brinell.probe.surface_boundary import contour

    x, y, ids = data.x(), data.labels(), torch.from_numpy(data.ids)
    with torch.no_grad():
        logits = net(x)
    found, counts = {}, {}
    for adaptive in (True, False):
        probe = parse(spec).replace(images=images, adaptive=adaptive)
        counted = Counted(net)
        probe = probe.prepared(probe.prepare(counted, data, draws=derive(0, ids=data.ids)))
        found[adaptive] = probe.observe(View(x, x, y, ids, logits, net=counted), draws=derive(0, spec, ids=ids))
        counts[adaptive] = counted.forwards
    few, whole = (found[adaptive]["heights"][:, :4].double().numpy() for adaptive in (True, False))
    cells = np.arange(few.shape[-1], dtype=float)
    far = [hausdorff(contour(a, cells, cells), contour(b, cells, cells)) for a, b in zip(few[:, 0], whole[:, 0], strict=True)]
    kept = np.abs(few - whole).max((2, 3)) <= found[True]["error"].numpy() + 1e-4  # float32 logits
    return counts, far, kept


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest network, two images of each of three planes")
    parser.add_argument("--images", type=int, default=5, help="of each network and plane; 5 by default")
    given = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: this benchmark needs the images of cifar10-jpeg")
    from timing import one_thread, result

    import brinell as br

    data = br.load_dataset(f"parquet({str(DATA)!r})", limit=64)
    spent, whole, distances, kept = 0, 0, [], []
    with one_thread():
        for name in NETWORKS[:1] if given.quick else NETWORKS:
            net = br.load_network(str(HERE / "networks" / f"{name}.safetensors")).frozen_copy()
            for spec in PLANES[:3] if given.quick else PLANES:
                counts, far, within = compare(net, data, spec, 2 if given.quick else given.images)
                spent, whole = spent + counts[True], whole + counts[False]
                distances += far
                kept += within.ravel().tolist()
                print(f"{name} {spec}: {counts[False] / counts[True]:.2f} times fewer passes, boundary {max(far):.2f} cells off at most,"
                      f" stated errors kept {within.mean():.3f}", flush=True)  # fmt: skip
    result("surfaces", pass_ratio=whole / spent, contour_error=float(np.quantile(distances, 0.95, method="higher")),
           contour_worst=float(max(distances)), stated_kept=float(np.mean(kept)), surfaces=len(distances))  # fmt: skip


if __name__ == "__main__":
    main()
