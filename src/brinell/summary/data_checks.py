"""Findings on the data: enough samples, and each of them once?"""

from __future__ import annotations

from collections.abc import Iterator

from brinell.core.confidence import clopper_pearson
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Status, Verdict
from brinell.summary.points import Cell

FLAG, PASS = Verdict.FLAG, Verdict.PASS


def data_findings(table: Table, net: str, measured: list[Cell], *, width: float, duplicates: float, confidence: float) -> Iterator[Finding]:
    """How wide are the intervals, and what did the probe `duplicates` find?

    Arguments:
        width: of the interval of clean accuracy, from end to end. duplicates: share of samples that are there a second time.
    """
    clean = next((cell.correct for cell in measured if cell.perturbation.name == "clean"), None)
    if clean is not None:
        low, high = clopper_pearson(int(clean.sum()), len(clean), confidence)
        said = f"The {confidence:.0%} interval of clean accuracy on {len(clean)} samples is [{low:.3f}, {high:.3f}], {high - low:.3f} wide"
        if high - low > width:
            said += ": differences smaller than that show nothing. Take more samples"
        yield Finding("sample_size", FLAG if high - low > width else PASS, said, value=high - low, threshold=width, net=net)
    for row in table.select(net=net, perturbation="clean", name="duplicate_share", status=str(Status.OK)):
        said = f"{row['value']:.1%} of {row['n']} samples have the input of another one"
        if row["value"] > duplicates:
            said += ": they are no evidence of their own, and intervals are narrower than they should be. Leave them out"
        yield Finding("duplicates", FLAG if row["value"] > duplicates else PASS, said, value=row["value"], threshold=duplicates, net=net)
    for row in table.select(net=net, perturbation="clean", name="conflict_share", status=str(Status.OK)):
        said = f"{row['value']:.1%} of {row['n']} samples have the input of another one and another label"
        if row["value"]:
            said += ": no network is right on both. Correct the labels, or leave these samples out"
        yield Finding("conflicting_labels", FLAG if row["value"] else PASS, said, value=row["value"], threshold=0.0, net=net)
