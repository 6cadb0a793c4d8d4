"""Commands that measure: `audit` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from brinell.cli.app import DONE, Address, Cpus, Device, Executor, Gpus, Json, Many, app, say, say_json
from brinell.cli.runs import finish


@app.command
def audit(
    *nets: str,
    weights: Annotated[tuple[Path, ...], Many] = (),
    data: str = "digits",
    suite: Literal["quick", "standard", "full"] | None = None,
    perturb: Annotated[tuple[str, ...], Many] = (),
    probe: Annotated[tuple[str, ...], Many] = (),
    out: Path = Path("runs/audit"),
    seed: int = 0,
    device: Device = "auto",
    batch_size: int = 256,
    limit: int | None = None,
    download: Annotated[bool, Parameter(negative=())] = False,
    minutes: float | None = None,
    exact: Annotated[bool, Parameter(negative=())] = False,
    plan: Annotated[bool, Parameter(negative=())] = False,
    executor: Executor = "local",
    address: Address = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    json: Json = False,
) -> int:
    """Measure trained networks under corruptions, noise and attacks, and write a report.

    Examples:

    brinell audit resnet20 --weights net.safetensors --data "parquet(path='test.parquet')" --suite quick --out runs/first

    brinell audit a=mine.py:build b=resnet20 --weights a.pt b.safetensors --data digits --out runs/two

    brinell audit resnet20 --data digits --perturb "pgd(steps=40, threat=ball(norm=2, eps=0.5))" --out runs/l2 --plan

    Parameters
    ----------
    nets
        Architecture (`resnet20`), `file.py:function`, `package.module:function`, `timm:NAME`, `hf:DIRECTORY`, `torchvision:NAME`, or
        a `.safetensors` file saved by brinell; `NAME=...` gives the network a name of its own.
    weights
        One file per network, in their order: .safetensors, or a torch checkpoint of plain tensors. Without it the network is
        randomly initialised, and the report says so.
    data
        `digits`, `parquet(path='...')`, `folder(path='...', resize=256, crop=224)`, `npz(path='...')`; see `brinell list data`.
    suite
        quick (512 samples, the default), standard (2,000), full (all samples, all items). With --perturb and no --suite only the
        given perturbations are measured.
    perturb
        Further perturbations, as specs; see `brinell list perturb`.
    probe
        Further probes, as specs; see `brinell list probe`.
    out
        The run directory. The same command on the same directory continues an interrupted run.
    seed
        Of all randomness.
    batch_size
        Samples measured at once.
    limit
        A stratified sample of so many samples, drawn by the seed.
    download
        Let published weights be fetched that `timm:`, `hf:` and `torchvision:` do not find on this machine. Nothing else is ever fetched.
    minutes
        A time limit for the attacks that take a budget of passes (`strongest`): it is converted when the run is planned, and what it
        does not allow is said in the report.
    exact
        Attacks compute in float32 throughout; by default they draft in bfloat16 where a timing says that it gains.
    plan
        Print the cells, their passes and the expected time, and stop.
    """
    from brinell.core.dataset import load_dataset
    from brinell.engine.arguments import pick_executor
    from brinell.engine.lab import Lab
    from brinell.engine.observing import rehearse
    from brinell.engine.progress import for_stream
    from brinell.engine.suite import Suite
    from brinell.engine.suite import suite as choose

    samples = load_dataset(_source(data))
    chosen = choose(suite or "quick", samples) if suite or not perturb else Suite(None, ())
    samples = samples.limit(limit if limit is not None else chosen.limit, seed)
    networks = _networks(nets, weights, samples, download)
    if plan:
        lab = Lab(None, seed=seed, device=device, batch_size=batch_size, exact=exact)
        asked = lab.plan(networks, samples, (*chosen.perturbations, *perturb), (*chosen.probes, *probe), chosen.summaries, minutes=minutes)
        _print_plan(asked, json)
        return DONE
    runs = pick_executor(executor, address, cpus=cpus, gpus=gpus, device=device)
    lab = Lab(out, seed=seed, device=device, batch_size=batch_size, progress=for_stream(), executor=runs, exact=exact)
    asked = lab.plan(
        networks, samples, (*chosen.perturbations, *perturb), (*chosen.probes, *probe), chosen.summaries,
        suite=suite or ("" if perturb else "quick"), minutes=minutes,
    )  # fmt: skip
    rehearse(asked.nets.values(), asked.data, seed=seed, device=asked.device)
    return finish(lab.run(asked), out, json)


@app.command
def demo(*, out: Path = Path("demo"), seed: int = 0, device: Device = "auto", json: Json = False) -> int:
    """Train a ResNet-20 on real handwritten digits in front of you, audit it, and write its report; about a minute.

    Parameters
    ----------
    out
        The run directory; a second call finds the trained network and everything measured there.
    seed
        Of training and measuring.
    """
    from brinell.core.dataset import load_dataset
    from brinell.engine.lab import Lab
    from brinell.engine.progress import for_stream
    from brinell.engine.suite import suite as choose
    from brinell.models.loading import load_network, save_network

    train, test = load_dataset("digits(side=32, split=train)"), load_dataset("digits(side=32, split=test)")
    lab = Lab(out, seed=seed, device=device, progress=for_stream())
    lab.progress.say(f"data: {len(train)} training and {len(test)} test images of handwritten digits (scikit-learn), 32 x 32")
    untrained = load_network("resnet20", shape=train.shape, classes=len(train.classes), seed=seed)
    trained = lab.harden({"resnet20": untrained}, DEMO_TRAINING, train)
    save_network(trained["resnet20"], out / "resnet20.safetensors")
    quick = choose("quick", test)
    samples = test.limit(quick.limit, seed)
    lab.progress.say(
        f"network: {out / 'resnet20.safetensors'} (`brinell audit {out / 'resnet20.safetensors'} --data digits` measures it again)"
    )
    return finish(lab.run(lab.plan(trained, samples, quick.perturbations, quick.probes, quick.summaries, suite="quick")), out, json)


DEMO_TRAINING = "fit(batch_size=32, epochs=6, lr=0.1, schedule=onecycle)"
"""What `brinell demo` trains with: at least 97 % test accuracy in well under a minute on two cores."""


def _source(data: str) -> str:
    """The spec of the data, with a word for those who give a mere path."""
    from brinell.core.errors import DataError

    kind = {".parquet": "parquet", ".npz": "npz"}.get(Path(data).suffix, "folder" if Path(data).is_dir() else "")
    if kind and "(" not in data:
        raise DataError(f"{data} is a path; say how it is read: --data \"{kind}(path='{data}')\" (`brinell show {kind}` has its fields)")
    return data


def _networks(nets: tuple[str, ...], weights: tuple[Path, ...], samples: Any, download: bool) -> dict[str, Any]:
    """Load each NET with its weights; the names are the texts, or what stands before `=`."""
    from brinell.core.errors import NetworkError
    from brinell.models.loading import load_network

    if not nets:
        raise NetworkError("no network was named; try `brinell audit resnet20 --weights FILE --data digits`")
    if weights and len(weights) != len(nets):
        raise NetworkError(f"{len(nets)} networks but {len(weights)} weights files; give one --weights file per network, in their order")
    loaded: dict[str, Any] = {}
    for place, text in enumerate(nets):
        name, given, spec = text.partition("=")
        if not given or not name.replace("_", "").replace("-", "").isalnum():
            name, spec = text, text
        if not spec or Path(spec).is_dir():
            what = f"{spec} is a folder" if spec else f"{text!r} names no network"
            raise NetworkError(f"{what}; name an architecture (`brinell list models`), file.py:function, or a .safetensors file")
        unique, count = name, 2
        while unique in loaded:
            unique, count = f"{name}-{count}", count + 1
        file = weights[place] if weights else None
        loaded[unique] = load_network(spec, weights=file, shape=samples.shape, classes=len(samples.classes), download=download)
    return loaded


def _print_plan(plan: Any, json: bool) -> None:
    from brinell.engine.expectation import expect

    rows = expect(plan)
    if json:
        cells = [
            {"net": row.cell.net, "perturbation": row.cell.perturbation.spec(), "forwards": row.forwards, "backwards": row.backwards,
             "seconds": row.seconds} for row in rows
        ]  # fmt: skip
        say_json({"samples": len(plan.data), "data": plan.data.source, "probes": [p.spec() for p in plan.probes], "cells": cells})
        return
    width = max(len(f"{row.cell.net}: {row.cell.perturbation.spec()}") for row in rows)
    note = f" ({plan.data.note})" if plan.data.note else ""
    say(f"{len(rows)} cells of {len(plan.data)} samples from {plan.data.source}{note}; probes: {', '.join(p.spec() for p in plan.probes)}")
    say(f"{'cell':<{width}}  forwards  backwards  seconds   (passes per sample, at most)")
    for row in rows:
        say(f"{row.cell.net + ': ' + row.cell.perturbation.spec():<{width}}  {row.forwards:>8}  {row.backwards:>9}  {row.seconds:>7.1f}")
    forwards, backwards = (sum(getattr(row, name) for row in rows) * len(plan.data) for name in ("forwards", "backwards"))
    say(
        f"in all {forwards:,} forward and {backwards:,} backward passes; expected {sum(row.seconds for row in rows):.0f} s on {plan.device}"
    )
