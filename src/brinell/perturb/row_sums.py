"""Fixed weighted sums of rows, the linear part of blurs and zooms, the same bits in any batch; and columns picked quickly.

How a matrix product adds up depends on how many rows it is given; these sums have one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RowSums:
    """Row i of the result is the sum of weight[k] * row index[k] over start[i] <= k < start[i + 1], in the order of k.

    Arguments:
        index: (m,) int32. start: (rows,) int32. weight: (m,) float64.

    Example:
        >>> halves = RowSums(torch.tensor([0, 1, 2]).int(), torch.tensor([0, 2]).int(), torch.full((3,), 0.5))
        >>> halves(torch.tensor([[1.0], [3.0], [8.0]])).tolist()
        [[2.0], [4.0]]
    """

    index: Tensor
    start: Tensor
    weight: Tensor

    def __call__(self, table: Tensor) -> Tensor:
        """(k, columns) to (rows, columns)."""
        weight = self.weight.to(table.dtype)
        return F.embedding_bag(self.index, table.contiguous(), self.start, mode="sum", per_sample_weights=weight)

    def planes(self, x: Tensor) -> Tensor:
        """The same for every plane: (m, k, columns) to (m, rows, columns)."""
        m, k, columns = x.shape
        plane = torch.arange(m, dtype=torch.int32, device=x.device)[:, None]
        index, start = (self.index + plane * k).flatten(), (self.start + plane * len(self.index)).flatten()
        return RowSums(index, start, self.weight.repeat(m))(x.reshape(m * k, columns)).reshape(m, len(self.start), columns)


def columns(x: Tensor, index: Tensor) -> Tensor:
    """x[..., index] with one index for all rows, by the quickest way there is."""
    return x.gather(-1, index.expand(*x.shape[:-1], len(index)))


def row_sums(matrix: Any, device: torch.device | str = "cpu") -> RowSums:
    """The sums that a scipy sparse matrix stands for."""
    rows = matrix.tocsr()
    rows.sort_indices()
    index, start = (torch.from_numpy(part.astype(np.int32)) for part in (rows.indices, rows.indptr[:-1]))
    return RowSums(index.to(device), start.to(device), torch.from_numpy(rows.data.astype(np.float64)).to(device))
