"""Shape annotations are enforced while tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from brinell.core import norms
from brinell.core.goal import margin


def test_a_wrong_shape_is_refused_by_name() -> None:
    with pytest.raises(TypeCheckError, match="length"):
        norms.length(torch.zeros(3, dtype=torch.int64), 2)


def test_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(TypeCheckError, match="margin"):
        margin(torch.zeros(4, 3), torch.zeros(5, dtype=torch.int64))
