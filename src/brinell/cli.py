"""The command line: thin over the lab. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

import brinell
from brinell.core.errors import BrinellError

app = App(
    name="brinell",
    version=brinell.__version__,
    suppress_keyboard_interrupt=False,  # `main` says how to go on
    help="""How far do a network's answers yield when its inputs are perturbed, and why?

    Start with `brinell demo`, then `brinell audit resnet20 --weights FILE --data DATA --out DIR`.""",
    help_epilogue="Exit codes: 0 done, 2 bad input, 4 a certificate and an attack contradict each other, 130 interrupted.",
)

Many = Parameter(consume_multiple=True, negative=())
Device = Annotated[str, Parameter(help="cpu, cuda, mps, or auto for the best there is.")]


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
    plan: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Measure trained networks under corruptions, noise and attacks, and write a report.

    Examples:

    brinell audit resnet20 --weights net.safetensors --data "parquet(path='test.parquet')" --suite quick --out runs/first

    brinell audit a=mine.py:build b=resnet20 --weights a.pt b.safetensors --data digits --out runs/two

    brinell audit resnet20 --data digits --perturb "pgd(steps=40, threat=ball(norm=2, eps=0.5))" --out runs/l2 --plan

    Parameters
    ----------
    nets
        Architecture (`resnet20`), `file.py:function`, `package.module:function`, `timm:NAME`, or a `.safetensors` file saved by
        brinell; `NAME=...` gives the network a name of its own.
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
    plan
        Print the cells, their passes and the expected time, and stop.
    """
    from brinell.core.dataset import load_dataset
    from brinell.engine.lab import Lab
    from brinell.engine.progress import for_stream
    from brinell.engine.suite import Suite
    from brinell.engine.suite import suite as choose

    samples = load_dataset(data)
    chosen = choose(suite or "quick", samples) if suite or not perturb else Suite(None, ())
    samples = samples.limit(limit if limit is not None else chosen.limit, seed)
    networks = _networks(nets, weights, samples)
    if plan:
        lab = Lab(None, seed=seed, device=device, batch_size=batch_size)
        _print_plan(lab.plan(networks, samples, (*chosen.perturbations, *perturb), (*chosen.probes, *probe), chosen.summaries))
        return 0
    lab = Lab(out, seed=seed, device=device, batch_size=batch_size, progress=for_stream())
    asked = lab.plan(
        networks, samples, (*chosen.perturbations, *perturb), (*chosen.probes, *probe), chosen.summaries,
        suite=suite or ("" if perturb else "quick"),
    )  # fmt: skip
    return _finish(lab.run(asked), out)


@app.command
def demo(*, out: Path = Path("demo"), seed: int = 0, device: Device = "auto") -> int:
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
    trained = lab.harden({"resnet20": untrained}, DEMO_TRAINING, train, progress=lab.progress, device=str(lab.device))
    save_network(trained["resnet20"], out / "resnet20.safetensors")
    quick = choose("quick", test)
    samples = test.limit(quick.limit, seed)
    _say(f"network: {out / 'resnet20.safetensors'} (`brinell audit {out / 'resnet20.safetensors'} --data digits` measures it again)")
    return _finish(lab.run(lab.plan(trained, samples, quick.perturbations, quick.probes, quick.summaries, suite="quick")), out)


DEMO_TRAINING = "fit(batch_size=32, epochs=6, lr=0.1, schedule=onecycle)"
"""What `brinell demo` trains with: at least 97 % test accuracy in well under a minute on two cores."""


@app.command(name="list")
def list_items(kind: Literal["data", "models", "perturb", "probe", "summary", "harden", "certify", "studies", ""] = "") -> int:
    """List what can be named in a spec.

    Parameters
    ----------
    kind
        Only the items of this package.
    """
    from brinell.core.component import items

    shown = {name: cls for name, cls in items().items() if not kind or cls.__module__.startswith(f"brinell.{kind}.")}
    width = max((len(name) for name in shown), default=0)
    for place in sorted({_package(cls) for cls in shown.values()}):
        _say(f"{place}:")
        for name, cls in shown.items():
            if _package(cls) == place:
                _say(f"  {name:<{width}}  {cls.summary_line()}")
    return 0


@app.command
def show(name: str) -> int:
    """Show an item: what it is, its fields with their defaults, and its references.

    Parameters
    ----------
    name
        As in `brinell list`.
    """
    import inspect

    from brinell.core.component import get

    cls = get(name)
    _say(f"{name} (version {cls.version}, {cls.__module__})\n\n{inspect.cleandoc(cls.__doc__ or '')}\n\nFields:")
    for field, info in sorted(cls.model_fields.items()):
        default = "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)!r}"
        limits = f", {', '.join(str(limit) for limit in info.metadata)}" if info.metadata else ""
        _say(f"  {field}: {_type_name(info.annotation)}, {default}{limits}")
    return 0


@app.command
def report(directory: Path) -> int:
    """Write DIRECTORY/report.html from what is finished there, and print the summary.

    Parameters
    ----------
    directory
        A run directory; it may hold an unfinished run.
    """
    from brinell.engine.table import open_table

    return _finish(open_table(directory), directory)


@app.command
def export(directory: Path, *, format: Literal["csv", "parquet", "json"] = "csv", out: Path | None = None) -> int:  # noqa: A002
    """Write all measurements as one tidy table: net, data, perturbation, probe, layer, name, value, low, high, ...

    Parameters
    ----------
    directory
        A run directory.
    format
        Of the file.
    out
        Where to; DIRECTORY/measurements.FORMAT by default.
    """
    from brinell.engine.table import open_table
    from brinell.report.export import export as write

    _say(str(write(open_table(directory), format, out or directory / f"measurements.{format}")))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `BrinellError` becomes one line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a shared machine down many times
    try:
        result = app(given, exit_on_error=False, print_error=False, result_action="return_value")
    except (BrinellError, CycloptsError) as error:
        _complain(" ".join(str(error).split()))
        return 2
    except KeyboardInterrupt:
        _complain(f"interrupted; what is finished is kept. Continue with the same command: brinell {' '.join(map(_quote, given))}")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        return 0
    return result if isinstance(result, int) else 0


def _networks(nets: tuple[str, ...], weights: tuple[Path, ...], samples: Any) -> dict[str, Any]:
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
        unique, count = name, 2
        while unique in loaded:
            unique, count = f"{name}-{count}", count + 1
        file = weights[place] if weights else None
        loaded[unique] = load_network(spec, weights=file, shape=samples.shape, classes=len(samples.classes))
    return loaded


def _print_plan(plan: Any) -> None:
    from brinell.engine.expectation import expect

    rows = expect(plan)
    width = max(len(f"{row.cell.net}: {row.cell.perturbation.spec()}") for row in rows)
    note = f" ({plan.data.note})" if plan.data.note else ""
    _say(f"{len(rows)} cells of {len(plan.data)} samples from {plan.data.source}{note}; probes: {', '.join(p.spec() for p in plan.probes)}")
    _say(f"{'cell':<{width}}  forwards  backwards  seconds   (passes per sample, at most)")
    for row in rows:
        _say(f"{row.cell.net + ': ' + row.cell.perturbation.spec():<{width}}  {row.forwards:>8}  {row.backwards:>9}  {row.seconds:>7.1f}")
    forwards, backwards = (sum(getattr(row, name) for row in rows) * len(plan.data) for name in ("forwards", "backwards"))
    _say(
        f"in all {forwards:,} forward and {backwards:,} backward passes; expected {sum(row.seconds for row in rows):.0f} s on {plan.device}"
    )


def _finish(table: Any, out: Path) -> int:
    """Write the report, print the summary, and choose the exit code."""
    from brinell.report.page import write_report
    from brinell.report.text import summary_text

    _say(summary_text(table))
    _say(f"report: {write_report(table, out / 'report.html')}")
    return 4 if any(finding.name == "contradiction" for finding in table.findings) else 0


def _package(cls: type) -> str:
    parts = cls.__module__.split(".")
    return parts[1] if parts[0] == "brinell" and len(parts) > 1 else parts[0]


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _quote(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"brinell: {text}\n")
