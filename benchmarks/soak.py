"""A long run: 100,000 images under 20 perturbations, with memory and open files watched.

    python benchmarks/soak.py [--quick]

The images are made when they are read (noise around handwritten digits), so that whatever grows is the lab's. Resident memory is read
after every shard; `memory_ratio` is its largest value in the last tenth of the run over that in the second tenth, `bytes_per_sample`
the difference, in bytes for each sample, and `files` the change of the number of open files. `stored_bytes` is the size of the run
directory for each sample and perturbation.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from timing import result
from torch import Tensor

import brinell as br
from brinell.engine.progress import Silent

PERTURBATIONS = (
    *(f"{name}(severity={s})" for name in ("brightness", "contrast", "pixelate") for s in (1, 2, 3, 4, 5)),
    *(f"uniform_noise(threat=ball(eps={e}/255))" for e in (2, 8)), "occlusion", "low_pass", "fgsm(threat=ball(eps=2/255))",
)  # fmt: skip
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Resident memory of this process in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Watch(Silent):
    """Notes memory and open files whenever a shard is finished."""

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.files: list[int] = []
        self.said, self.began = 0.0, time.monotonic()

    def advance(self, amount: float, text: str = "") -> None:
        self.memory.append(resident())
        self.files.append(open_files())
        if time.monotonic() - self.said > 60:
            self.said = time.monotonic()
            print(f"{self.said - self.began:5.0f} s  {len(self.memory)} pieces, {self.memory[-1] / 1e6:.0f} MB  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5,000 images")
    n = 5_000 if parser.parse_args().quick else 100_000
    digits = br.load_dataset("digits(side=32)").x()

    def made(ids: np.ndarray) -> Tensor:
        noise = br.derive(0, "soak", ids=ids).uniform(3, 32, 32)
        return 0.9 * digits[torch.from_numpy(ids % len(digits))] + 0.1 * noise

    rows = np.arange(n)
    data = br.Dataset("digits under noise", (3, 32, 32), rows % 10, rows, tuple("0123456789"), made, content="digits under noise")
    watch = Watch()
    with tempfile.TemporaryDirectory() as place:
        lab = br.Lab(place, device="cpu", progress=watch, batch_size=500)
        table = lab.measure(
            br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10), data, PERTURBATIONS, ("accuracy", "calibration"), ("bound",)
        )
        stored = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
        if table.select(status="failed") or len(table.samples("net", "low_pass")["id"]) != n:
            sys.exit("cannot measure: a cell failed, or samples are missing")
    tenth = len(watch.memory) // 10
    early, late = max(watch.memory[tenth : 2 * tenth]), max(watch.memory[-tenth:])
    seconds, cells = time.monotonic() - watch.began, len(PERTURBATIONS) + 1
    print(f"{n} images, {cells} cells, {seconds:.0f} s; {early / 1e6:.0f} MB early, {late / 1e6:.0f} MB late")
    files = max(watch.files[-tenth:]) - max(watch.files[tenth : 2 * tenth])
    result("soak", memory_ratio=late / early, bytes_per_sample=(late - early) / n, files=files, stored_bytes=stored / n / cells)


if __name__ == "__main__":
    main()
