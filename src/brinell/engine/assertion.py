"""`assert_robust`: the requirements of `brinell gate` inside a test suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brinell.core.errors import SpecError
from brinell.core.lab import Table
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Probe
from brinell.core.summary import Summary
from brinell.engine.arguments import as_dataset
from brinell.engine.gate import Outcome, judge, outcome_text, worst
from brinell.engine.lab import Lab
from brinell.engine.requirement import requirement
from brinell.engine.suite import suite as choose


def assert_robust(
    net: Any,
    data: Any,
    *requirements: str,
    suite: str | None = None,
    perturb: Sequence[Perturbation | str] = (),
    probes: Sequence[Probe | str] = ("accuracy",),
    summaries: Sequence[Summary | str] = ("bound",),
    directory: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 256,
) -> Table:
    """Measure what the requirements name, and fail the test unless all of them are met: is this network still robust enough?

    Requirements have the language of `brinell gate` (`engine.requirement`): a bare reading stands for the end of its interval that
    is harder to meet, so that a test does not pass by the luck of few samples.

    Arguments:
        net: a network or module, or a dict of them by name. data: a dataset, its spec, or a pair (x, y).
        suite, perturb: measured besides the perturbations that the requirements name. probes, summaries: what is read.
        directory: keeps the run, so that a second call measures nothing; a temporary one when None.
        limit: a stratified sample of so many samples, drawn by the seed.

    Returns:
        The table of all that was measured.

    Raises:
        AssertionError: a requirement is not met; the message is what `brinell gate` prints.
        SpecError: a requirement cannot be read, or names a reading that nothing here reads.

    Example:
        >>> import brinell as br
        >>> net = br.load_network("mlp(widths=(32,))", shape=(1, 8, 8), classes=10)
        >>> table = assert_robust(net, "digits(side=8)", "accuracy[fgsm] >= 0", "value(accuracy) <= 0.5", limit=60)
        >>> [row["perturbation"] for row in table.select(name="accuracy")]
        ['clean', 'fgsm(threat=ball(eps=8/255, norm=inf))']
    """
    if not requirements:
        raise SpecError('assert_robust needs a requirement, such as "accuracy[pgd(steps=40)] >= 0.4"')
    wanted = [requirement(text) for text in requirements]
    samples = as_dataset(data)
    chosen = choose(suite, samples) if suite else None
    if limit is not None or chosen is not None:
        samples = samples.limit(limit if limit is not None or chosen is None else chosen.limit, seed)
    named = [item.perturbation for item in wanted if item.perturbation is not None]
    suited, read = (chosen.perturbations, chosen.probes) if chosen else ((), ())
    summed = (*(chosen.summaries if chosen else ()), *summaries)
    lab = Lab(directory, seed=seed, device=device, batch_size=batch_size)
    table = lab.measure(net, samples, [*suited, *perturb, *named], [*read, *probes], summed)
    found = judge(table, wanted)
    if worst(found) is Outcome.MISSING:
        raise SpecError(
            f"a requirement names what was not measured; pass perturb=, probes= or summaries= that read it\n{outcome_text(found)}"
        )
    if worst(found) is Outcome.NOT_MET:
        raise AssertionError(f"the network is not robust enough\n{outcome_text(found)}")
    return table
