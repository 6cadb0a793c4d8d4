"""What the lab costs beside the network's own passes: `Lab.measure` over a bare loop that makes the same passes.

    python benchmarks/overhead.py [--quick]

A first, untimed run of the lab writes down every pass of the network: how many samples, and how often gradients flowed back. The
bare loop repeats them with the same network (frozen, evaluation mode, channels-last) on batches of the same sizes, and does nothing
else. It starts from images in memory, the lab too. The labels are what the network says of the images, so that every sample is
attacked. Three cases: a radius that most samples survive, so that the attack takes its 20 steps; the usual one, at which they leave
after a few; and that one with the probe that makes passes of its own.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timing import interleaved, median_ratio, one_thread, result
from torch import Tensor, nn

import brinell as br

NETWORK = Path(__file__).resolve().parent / "networks" / "resnet20.safetensors"
PROBES = ("accuracy", "calibration", "class_selectivity")
CASES = {  # name: radius, samples, probes
    "survivors": ("0.1/255", 256, PROBES),
    "usual": ("8/255", 512, PROBES),
    "diagnosed": ("8/255", 512, (*PROBES, "diagnostics")),
}
PROMISED = ("survivors", "usual")


@dataclass
class Pass:
    """One call of the network: samples passed forwards, whether a graph was built, and how often it was passed backwards."""

    samples: int
    graph: bool
    backwards: int = 0


@dataclass
class Log:
    """The passes of a network, in their order."""

    passes: list[Pass] = field(default_factory=list)

    def watched(self, module: nn.Module) -> nn.Module:
        """A copy of the module whose passes are written down, and those of copies of it."""
        twin = copy.deepcopy(module)
        twin.register_forward_hook(self.note)
        return twin

    def note(self, _: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        seen = Pass(len(inputs[0]), out.requires_grad)
        self.passes.append(seen)
        if out.requires_grad:
            out.register_hook(lambda _: setattr(seen, "backwards", seen.backwards + 1))

    def __deepcopy__(self, _: object) -> "Log":
        return self


def bare_loop(module: nn.Module, x: Tensor, passes: list[Pass]) -> None:
    """The passes and nothing else."""
    net = copy.deepcopy(module).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for step in passes:
        z = x[: step.samples]
        if not step.graph:
            with torch.inference_mode():
                net(z)
            continue
        z = z.detach().requires_grad_()
        logits = net(z)
        for number in range(step.backwards):
            torch.autograd.grad(logits, z, torch.ones_like(logits), retain_graph=number + 1 < step.backwards)


def images(net: br.Network, n: int) -> br.Dataset:
    """Handwritten digits in three equal channels, with the network's answers for labels."""
    x = br.load_dataset("digits(side=32)", limit=n).x().repeat(1, 3, 1, 1)
    with torch.no_grad():
        return br.Dataset.from_arrays(x, net(x).argmax(1), classes=10, name="digits")


def sides(net: br.Network, radius: str, n: int, probes: tuple[str, ...]) -> dict[str, Callable[[], object]]:
    """The lab and the bare loop for one case.

    Raises:
        SystemExit: a cell failed, or the lab counted other passes than the network saw.
    """
    data = images(net, n)
    perturbations = ("gaussian_noise(severity=3)", f"pgd(steps=20, threat=ball(eps={radius}, norm=inf))")

    def lab(module: nn.Module) -> br.Table:
        return br.Lab(device="cpu", exact=True).measure(module, data, perturbations, probes)

    log = Log()
    table = lab(log.watched(net.module))
    del log.passes[0]  # the two samples that the lab rehearses with are overhead
    cost = {row["perturbation"]: (row["forwards"], row["backwards"]) for row in table.rows}
    counted = tuple(map(sum, zip(*cost.values(), strict=True)))
    seen = (sum(p.samples for p in log.passes), sum(p.samples * p.backwards for p in log.passes))
    failed = [row["reason"] for row in table.select(status="failed")]
    if failed or counted != seen:
        sys.exit(f"cannot measure: {failed[0] if failed else f'the lab counted {counted} passes, the network saw {seen}'}")
    left = table.value("accuracy", perturbation=table.perturbations()[-1].spec())
    print(f"  {n} samples, {seen[0]} forward and {seen[1]} backward passes; {left:.0%} withstand the attack", flush=True)
    x = data.x()[:256].contiguous(memory_format=torch.channels_last)
    if max(p.samples for p in log.passes) > len(x):
        sys.exit("cannot measure: the lab made a larger batch than the bare loop has")
    return {"lab": lambda: lab(net.module), "bare": lambda: bare_loop(net.module, x, log.passes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else 11
    net = br.load_network(NETWORK)
    ratios = {}
    with one_thread():
        for name, case in CASES.items():
            print(f"{name}: radius {case[0]}, probes {', '.join(case[2])}", flush=True)
            seconds = interleaved(sides(net, *case), rounds)
            ratios[name] = median_ratio(seconds["lab"], seconds["bare"])
            low, high = (end(a / b for a, b in zip(seconds["lab"], seconds["bare"], strict=True)) for end in (min, max))
            print(
                f"  lab / bare {ratios[name]:.3f} ({low:.3f} to {high:.3f}); bare {sorted(seconds['bare'])[rounds // 2]:.2f} s", flush=True
            )
    result("overhead", overhead=max(ratios[name] for name in PROMISED), **ratios)


if __name__ == "__main__":
    main()
