"""Train the networks that benchmarks and slow tests measure, and say how good they are.

    python benchmarks/networks/train.py --data ../shared/data/cifar10-jpeg

DATA holds train.parquet and test.parquet. Existing files are replaced. See README.md beside this file for what came out.
"""

import argparse
import time
from pathlib import Path

import torch

import brinell as br
from brinell.core.hardening import Hardening
from brinell.core.threat import Ball
from brinell.engine.progress import for_stream
from brinell.harden.adversarial import Adversarial
from brinell.harden.fit import Fit
from brinell.perturb.fgsm import FGSM

HERE = Path(__file__).resolve().parent
RESNET = Fit(epochs=6, batch_size=128, lr=0.2, schedule="onecycle", weight_decay=5e-4, shift=2, flip=True, amp=True)
FAST = FGSM(random_start=True, rate=1.25, threat=Ball(eps=8 / 255))
RECIPES: dict[str, tuple[str, Hardening]] = {  # file: architecture, training
    "resnet20": ("resnet20", RESNET),
    "resnet20_robust": ("resnet20", Adversarial(attack=FAST, fit=RESNET.replace(epochs=8))),
    "small_cnn": ("small_cnn", Fit(epochs=4, batch_size=128, lr=0.1, schedule="onecycle", weight_decay=5e-4, flip=True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data" / "cifar10-jpeg")
    parser.add_argument("--checkpoints", type=Path, help="a folder in which an interrupted training finds its last epoch")
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=f"which of {', '.join(RECIPES)}; all by default")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (br.load_dataset(f"parquet({str(given.data / name)!r})") for name in ("train.parquet", "test.parquet"))
    for name in given.names:
        architecture, recipe = RECIPES[name]
        began = time.process_time()
        start = br.load_network(architecture, shape=train.shape, classes=len(train.classes), seed=0)
        checkpoint = given.checkpoints and given.checkpoints / f"{name}.safetensors"
        net = recipe(start, train, seed=0, progress=for_stream(), checkpoint=checkpoint)
        spent = time.process_time() - began
        # the notes of a file kept in git must not name folders of the machine it was made on
        net.notes = (f"trained by {recipe.spec()} on the {len(train)} images of {given.data.name}/train.parquet, seed 0",)
        file = br.save_network(net, HERE / f"{name}.safetensors")
        right = br.Lab().measure(net, test, probes=["accuracy"]).value("accuracy")
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, test accuracy {right:.4f} of {len(test)}, {spent / 60:.1f} CPU minutes")


if __name__ == "__main__":
    main()
