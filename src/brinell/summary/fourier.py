"""The Fourier heat map: errors under noise of one single frequency each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from brinell.core.lab import Table
from brinell.core.measurement import Finding, Reading
from brinell.core.summary import Summary
from brinell.summary.graded import Resampled
from brinell.summary.points import Cell

Waves = tuple[int, int]


class FourierHeatMap(Summary, name="fourier_heat_map"):
    """The share of wrong answers under each Fourier basis function: to which frequencies is the network sensitive?

        E[r, c] = share of samples wrong at clip(x + s eps U_rc, 0, 1),   U_rc and the signs s those of `fourier_basis`

    read from all `fourier_basis` cells of the run (`perturb.frequency.fourier_grid` lists them), for each eps on its own:

    - `fourier_error`, layer `eps 4`: the mean of E over the measured frequencies, each pair of (r, c) and (-r, -c), which are one
      function, once. Its array (axis `frequency`) is the heat map, a matrix (rows, columns) of E in [0, 1]: entry (i, j) of an
      array of shape (h, w) belongs to r = i - h // 2 waves over the height and c = j - w // 2 over the width, so constant noise
      stands in the middle; NaN where nothing was measured. It is as large as the largest frequency asks for, and at most as the image;
    - `fourier_error_worst`, layer: the spec of the cell: the largest E. It is the largest of many, hence biased upwards.

    UNDEFINED: a cell of that eps failed (with its spec), and the worst where no frequency was measured. A sample whose logits hold NaN or
    inf is wrong. A frequency that is measured twice (as (r, c) and as (-r, -c)) counts with its mean.

    Values are exact for the samples and signs drawn. The interval of the mean is for the population: a percentile bootstrap that
    draws samples and takes each with all its cells. The intervals of single entries stand with the accuracy of their cells.

    Arguments:
        confidence: of the interval. resamples: of the bootstrap.

    References: Yin, Gontijo Lopes, Shlens, Cubuk & Gilmer (2019), "A Fourier Perspective on Model Robustness in Computer Vision",
        NeurIPS, https://arxiv.org/abs/1906.08988, section 2 and figure 3.

    Example:
        >>> import brinell as br
        >>> from brinell.perturb.frequency import fourier_grid
        >>> data = br.load_dataset("digits", limit=50)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> grid = fourier_grid(*data.shape[1:], eps=1.0, most=1)
        >>> table = br.Lab().measure(net, data, grid, summaries=["fourier_heat_map"])
        >>> row = table.row("fourier_error", perturbation="", layer="eps 1")
        >>> heat = table.array(row)
        >>> heat.shape, bool(heat[0, 0] == heat[2, 2])               # (-1, -1) and (1, 1) are one function
        ((3, 3), True)
    """

    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=100)

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        by_eps: dict[float, list[Any]] = {}
        for item in table.perturbations():
            if item.name == "fourier_basis":
                by_eps.setdefault(float(getattr(item, "eps", 0.0)), []).append(item)
        return [
            (net, reading) for net in table.networks for eps, waves in by_eps.items() for reading in self._readings(table, net, eps, waves)
        ]

    def _readings(self, table: Table, net: str, eps: float, waves: list[Any]) -> Iterator[Reading]:
        layer, wrong = f"eps {eps:g}", {}
        for item in waves:
            samples = table.samples(net, item)
            if not samples:
                yield Reading.undefined("fourier_error", f"the cell {item.spec()} failed", layer=layer)
                return
            wrong[item.spec()] = ~Cell(item, samples).correct
        height, width = table.plan["data"]["shape"][-2:]
        pairs: dict[Waves, list[np.ndarray]] = {}
        for item in waves:
            pairs.setdefault(_pair(item.row, item.column, (height, width)), []).append(wrong[item.spec()])
        errors = {pair: np.mean(columns, 0) for pair, columns in pairs.items()}
        means = Resampled({(net, layer): np.mean(list(errors.values()), 0)}, self.resamples)
        mean = means.reading(
            "fourier_error", layer, lambda e: e[:, 0], self.confidence, mean=True, reason=f"over {len(errors)} frequencies"
        )
        heat = heat_map({pair: float(column.mean()) for pair, column in errors.items()}, (height, width))
        yield dataclasses.replace(mean, array=heat, axis="frequency")
        worst = max(wrong, key=lambda spec: wrong[spec].mean())
        yield Reading("fourier_error_worst", float(wrong[worst].mean()), worst, n=means.n, reason=f"of {len(errors)} frequencies")


def _pair(row: int, column: int, size: Waves) -> Waves:
    """One name for (row, column) and (-row, -column), and for what is the same on this many pixels."""
    height, width = size
    return min((row % height, column % width), (-row % height, -column % width))


def heat_map(errors: dict[Waves, float], size: Waves) -> np.ndarray:
    """Errors by frequency as a matrix that is symmetric about its middle; NaN where there is none.

    Arguments:
        errors: (waves over the height, over the width) to error; (r, c) stands for (-r, -c) as well. size: of the images, in pixels.

    Returns:
        (h, w) float64; frequency (r, c) stands at (r + h // 2, c + w // 2). h is odd, or the height of the image.

    Example:
        >>> heat_map({(1, 0): 0.5, (0, 0): 0.25}, (8, 8))
        array([[0.5 ],
               [0.25],
               [0.5 ]])
    """
    known = {_pair(*waves, size): error for waves, error in errors.items()}
    spans = []
    for axis, side in enumerate(size):
        most = max(min(pair[axis], side - pair[axis]) for pair in known)
        spans.append(range(-most, most + 1) if 2 * most < side else range(-most, most))
    return np.array([[known.get(_pair(row, column, size), np.nan) for column in spans[1]] for row in spans[0]])
