"""How well a unit's response tells classes apart, by measures that a constant shift of the response does not change."""

from __future__ import annotations

import torch
from torch import Tensor

from brinell.core.errors import UndefinedReading


def f_ratio(responses: Tensor, labels: Tensor) -> Tensor:
    """The F-ratio of a one-way analysis of variance of each unit: variance between classes over variance within them.

        F = [ sum_c n_c (mu_c - mu)^2 / (K - 1) ] / [ sum_i (r_i - mu_{y_i})^2 / (n - K) ]

    About 1 for a unit that knows nothing of the classes, whatever the number of samples. Neither a shift nor a scale of the responses
    changes it. NaN where responses are constant within every class.

    Arguments:
        responses: (n, u), of either sign. labels: (n,) classes; K of them occur.

    Returns:
        (u,) float64.

    Raises:
        UndefinedReading: fewer than 2 classes occur, or no class has 2 samples, or a response is not finite.

    Example:
        >>> f_ratio(torch.tensor([[1.0], [3.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
        tensor([8.], dtype=torch.float64)
    """
    _check(responses, labels)
    r = responses.double()
    member = torch.nn.functional.one_hot(labels).double()
    return f_ratio_of_sums(member.T @ r, member.sum(0), r.square().sum(0))


def f_ratio_of_sums(sums: Tensor, counts: Tensor, squares: Tensor) -> Tensor:
    """The F-ratio from sums over samples. sums: (K, u) of each class. counts: (K,). squares: (u,) of all samples."""
    present = counts > 0
    sums, counts = sums[present], counts[present].double()
    n, k = float(counts.sum()), len(counts)
    if k < 2 or n <= k:
        raise UndefinedReading(f"an F-ratio compares classes of several samples; there are {n:g} samples of {k} class(es)")
    within = squares - (sums.square() / counts[:, None]).sum(0)
    between = (sums.square() / counts[:, None]).sum(0) - sums.sum(0).square() / n
    within = torch.where(within > 1e-12 * squares, within, torch.nan)  # what is left of a difference of equal numbers is rounding
    return (between.clamp(min=0) / (k - 1)) / (within / (n - k))


def preference_auc(responses: Tensor, labels: Tensor, preferred: Tensor) -> Tensor:
    """The area under the ROC curve of each unit's response as a detector of its preferred class.

        AUC = P( r(in class) > r(elsewhere) ) + P( equal ) / 2,  over pairs of samples

    1 where the response separates the class from all others, 0.5 where it knows nothing. Only the order of responses counts.

    Arguments:
        responses: (n, u). labels: (n,). preferred: (u,) the class of each unit; -1 for none.

    Returns:
        (u,) float64; NaN where the class or its complement has no sample.

    Example:
        >>> preference_auc(torch.tensor([[3.0], [1.0], [2.0], [0.0]]), torch.tensor([0, 0, 1, 1]), torch.tensor([0]))
        tensor([0.7500], dtype=torch.float64)
    """
    _check(responses, labels)
    n = len(responses)
    columns = responses.T.contiguous()
    ordered = columns.sort(1).values
    below, upto = (torch.searchsorted(ordered, columns, right=right) for right in (False, True))
    ranks = (below + upto + 1).double() / 2  # from 1; those of equal responses are averaged
    chosen = labels[None, :] == preferred[:, None]
    inside = chosen.sum(1).double()
    outside = n - inside
    area = ((ranks * chosen).sum(1) - inside * (inside + 1) / 2) / (inside * outside)
    return torch.where((inside > 0) & (outside > 0), area, torch.nan)


def _check(responses: Tensor, labels: Tensor) -> None:
    if responses.ndim != 2 or labels.shape != responses.shape[:1]:
        raise UndefinedReading(f"needs (n, u) responses and (n,) labels; got {tuple(responses.shape)} and {tuple(labels.shape)}")
    if not bool(torch.isfinite(responses).all()):
        raise UndefinedReading("responses hold NaN or inf")
