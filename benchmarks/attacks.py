"""Speed of attacks at equal strength, beside the libraries in use: Foolbox, ART, torchattacks (PGD) and pyautoattack.

    python benchmarks/attacks.py            RESULT attacks pgd_natural_8= pgd_efficiency_1= pgd_robust= autoattack_natural=
                                            autoattack_robust=
    python benchmarks/attacks.py --quick    one round, fewer images

PGD takes 40 steps of 2.5 eps / 40 from a random start in Linf, on a ResNet-20 trained naturally (eps 8/255 and 1/255) and one trained
against attacks (8/255). Every side attacks the same images in one batch, in one process on one thread, in turns; the networks are the
same modules in the same memory format. pgd_* and autoattack_* are the median over rounds of the fastest peer's processor seconds over ours;
pgd_efficiency_1 is that ratio at 1/255 over 40 / (our mean forward passes a sample), which is what leaving early gains. Robust
accuracy is judged by one float32 pass for all sides and printed beside every time, with the passes an image. AutoAttack is the standard
version in Linf 8/255; a row says on how many images the two differ. The exit code is 1 where ours is weaker: more than half a point
above the best peer's robust accuracy, or more than two images that only pyautoattack breaks.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent
PGD_PEERS = ("foolbox", "art", "torchattacks")


def borrow(names: tuple[str, ...]) -> None:
    """See the packages of further peers too; the first one's come before theirs."""
    for name in names:
        folder = peers.ensure(name).parent.parent / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        sys.path.append(str(folder))


def sides(net, x, y, eps: float, steps: int, draws) -> dict:
    """What each library is asked, by name: a function that returns adversarial points."""
    import art.attacks.evasion as evasion
    import foolbox
    import torch
    import torchattacks
    from art.estimators.classification import PyTorchClassifier

    from brinell.core.perturbation import points
    from brinell.core.threat import Ball
    from brinell.perturb.pgd import PGD

    size, module = 2.5 * eps / steps, net.module
    attack = PGD(steps=steps, threat=Ball(eps=eps))
    bounded = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    theirs = torchattacks.PGD(module, eps=eps, alpha=size, steps=steps)
    classifier = PyTorchClassifier(module, torch.nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu")
    generator = evasion.ProjectedGradientDescentPyTorch(
        classifier, eps=eps, eps_step=size, max_iter=steps, num_random_init=1, batch_size=len(x), verbose=False
    )
    return {
        "brinell": lambda: points(attack(net, x, y, draws=draws)),
        "foolbox": lambda: foolbox.attacks.LinfPGD(abs_stepsize=size, steps=steps)(bounded, x, y, epsilons=eps)[1],
        "art": lambda: torch.from_numpy(generator.generate(x.numpy(), y.numpy())),
        "torchattacks": lambda: theirs(x, y),
    }


def measured(sides: dict, rounds: int) -> tuple[dict, dict]:
    """Processor seconds by side and round, and the points each side found last. All run on one thread, so that on an idle machine
    these are the seconds of the clock; on a busy one they leave out what other programs took."""
    from timing import interleaved

    found, seconds = {}, {name: [] for name in sides}

    def keep(name):
        def run():
            began = time.process_time()
            found[name] = sides[name]()
            seconds[name].append(time.process_time() - began)

        return run

    warmup = 0 if rounds == 1 else 1
    interleaved({name: keep(name) for name in sides}, rounds, warmup=warmup)
    return {name: spent[warmup:] for name, spent in seconds.items()}, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, fewer images")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "cifar10-jpeg" / "test.parquet")
    parser.add_argument("--images", type=int, help="for PGD (256, quick 64)")
    parser.add_argument("--autoattack-images", type=int, help="for AutoAttack (128, quick 16)")
    parser.add_argument("--rounds", type=int, help="for PGD (5, quick 1); AutoAttack takes a third of them")
    parser.add_argument("--only", nargs="*", choices=["natural", "robust", "autoattack_natural", "autoattack_robust"])
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    peers.enter("torchattacks")  # its packages are the oldest ones and come first
    borrow(("foolbox", "art", "autoattack"))

    import statistics
    import warnings

    import torch
    from timing import median_ratio, one_thread, result

    import brinell as br
    from brinell.core.network import Counted

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if not chosen.data.is_file():
        sys.exit(f"{chosen.data} is not there; name the CIFAR-10 test images with --data")
    images = chosen.images or (64 if chosen.quick else 256)
    few = chosen.autoattack_images or (16 if chosen.quick else 128)
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    parts = chosen.only or ["natural", "robust", "autoattack_natural", "autoattack_robust"]
    data = br.load_dataset(f"parquet({str(chosen.data)!r})").limit(max(images, few), 0)
    x, y = data.x(range(len(data))), torch.as_tensor(data.y)
    nets = {
        name: br.load_network(HERE / "networks" / f"{file}.safetensors").frozen_copy()
        for name, file in (("natural", "resnet20"), ("robust", "resnet20_robust"))
    }
    draws, found, weaker = br.derive(0, "benchmark", ids=range(len(x))), {}, []

    def right(net, z, y):
        with torch.no_grad():
            return net(z).argmax(1) == y

    def row(label: str, seconds: list[float], kept, passes: str = "") -> None:
        print(f"  {label:14}{statistics.median(seconds):9.2f} s   robust accuracy {kept.double().mean():7.4f}   {passes}", flush=True)

    def pgd(net, eps: float, title: str) -> tuple[float, float]:
        some, labels = x[:images], y[:images]
        everyone = sides(net, some, labels, eps, 40, draws[:images])
        everyone["brinell"]()  # the precision is chosen before the clock starts
        counted = Counted(net)
        sides_counted = sides(counted, some, labels, eps, 40, draws[:images])
        sides_counted["brinell"]()
        forwards, backwards = (count / images for count in counted.reset())
        seconds, points = measured(everyone, rounds)
        print(f"PGD-40, {title}, {images} images, clean accuracy {right(net, some, labels).double().mean():.4f}")
        kept = {name: right(net, points[name], labels) for name in everyone}
        if float(kept["brinell"].double().mean()) > min(float(kept[name].double().mean()) for name in PGD_PEERS) + 0.005:
            weaker.append(f"PGD, {title}")
        for name in everyone:
            passes = f"{forwards:.1f} forward and {backwards:.1f} backward passes an image" if name == "brinell" else "40 of each"
            row(name, seconds[name], kept[name], passes)
        fastest = min(median_ratio(seconds[name], seconds["brinell"]) for name in PGD_PEERS)
        print(f"  the fastest peer takes {fastest:.2f} times as long")
        return fastest, forwards

    def autoattack(net, title: str) -> float:
        from pyautoattack.autoattack import AutoAttack as Theirs

        from brinell.core.perturbation import points
        from brinell.core.threat import Ball
        from brinell.perturb.autoattack import AutoAttack

        some, labels, ours = x[:few], y[:few], AutoAttack(threat=Ball(eps=8 / 255))
        theirs = Theirs(net.module, norm="Linf", eps=8 / 255, seed=0, version="standard")
        nets = {"brinell": Counted(net), "pyautoattack": Counted(net)}
        other = Theirs(nets["pyautoattack"], norm="Linf", eps=8 / 255, seed=0, version="standard")
        both = {
            "brinell": lambda: points(ours(nets["brinell"], some, labels, draws=draws[:few])),
            "pyautoattack": lambda: (other if rounds == 1 else theirs).run_standard_evaluation(some, labels, batch_size=few)[0],
        }
        ours.replace(steps=4, queries=1)(net, some[:4], labels[:4], draws=draws[:4])  # the precision is chosen before the clock starts
        seconds, z = measured(both, max(1, rounds // 3))
        kept = {name: right(net, z[name], labels) for name in both}
        if int((kept["brinell"] & ~kept["pyautoattack"]).sum()) > 2:
            weaker.append(f"AutoAttack, {title}")
        print(f"AutoAttack, {title}, {few} images, {int((kept['brinell'] != kept['pyautoattack']).sum())} differ")
        for name in both:
            counts = nets[name].reset()
            row(
                name,
                seconds[name],
                kept[name],
                f"{counts[0] / few:.0f} forward and {counts[1] / few:.0f} backward passes an image, all rounds",
            )
        ratio = median_ratio(seconds["pyautoattack"], seconds["brinell"])
        print(f"  pyautoattack takes {ratio:.2f} times as long")
        return ratio

    with one_thread():
        if "natural" in parts:
            found["pgd_natural_8"], _ = pgd(nets["natural"], 8 / 255, "natural network, 8/255")
            fastest, passes = pgd(nets["natural"], 1 / 255, "natural network, 1/255")
            found["pgd_efficiency_1"] = fastest / (40 / passes)
        if "robust" in parts:
            found["pgd_robust"], _ = pgd(nets["robust"], 8 / 255, "robust network, 8/255")
        for name in ("natural", "robust"):
            if f"autoattack_{name}" in parts:
                found[f"autoattack_{name}"] = autoattack(nets[name], f"{name} network, 8/255")
    if weaker:
        print(f"weaker than a peer: {'; '.join(weaker)}")
    result("attacks", **found)
    return 1 if weaker else 0


if __name__ == "__main__":
    sys.exit(main())
