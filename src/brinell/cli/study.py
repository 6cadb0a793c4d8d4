"""Command that repeats a paper's experiment: `study`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from brinell.cli.app import DONE, Address, Cpus, Device, Executor, Gpus, Json, app, say, say_json


@app.command
def study(
    name: str,
    *,
    scale: Literal["smoke", "small", "paper"] = "small",
    out: Path | None = None,
    seed: int = 0,
    device: Device = "auto",
    batch_size: int = 256,
    executor: Executor = "local",
    address: Address = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    json: Json = False,
) -> int:
    """Repeat a paper's experiment, print a verdict for each of its claims, and leave a report.

    What is finished is kept in the directory: the same command goes on where an interrupted one stopped.

    Examples:

    brinell study class_selectivity --scale smoke --out runs/smoke

    brinell study "class_selectivity(seeds=5)" --out runs/selectivity

    Parameters
    ----------
    name
        A study, with fields where they differ from their default.
    scale
        smoke takes seconds and judges nothing; small takes minutes on two cores; paper is as published, and takes days without a GPU.
    out
        The run directory; studies/NAME-SCALE by default.
    seed
        Of all randomness; the repetitions of the study count on from it.
    batch_size
        Samples measured at once.
    """
    from brinell.core.component import parse
    from brinell.core.study import Scale, Study
    from brinell.engine.arguments import pick_executor
    from brinell.engine.lab import Lab
    from brinell.engine.progress import for_stream
    from brinell.report.study import study_text, write_study

    chosen = parse(name, Study)
    place = out or Path("studies") / f"{chosen.name}-{scale}"
    runs = pick_executor(executor, address, cpus=cpus, gpus=gpus, device=device)
    lab = Lab(place, seed=seed, device=device, batch_size=batch_size, progress=for_stream(), executor=runs)
    outcome = chosen(lab, scale=Scale(scale))
    lab.store.write_json("study.json", outcome.to_json())
    page = write_study(outcome, place / "report.html")
    if json:
        say_json(outcome.to_json())
    else:
        say(f"{study_text(outcome)}\nreport: {page}")
    return DONE
