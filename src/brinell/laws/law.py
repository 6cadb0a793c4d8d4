"""What a law is: a function of a component that raises `Broken` with the fact when it does not hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Broken(AssertionError):
    """A law does not hold; the message says what was found."""


@dataclass(frozen=True)
class Outcome:
    """Whether a component meets a law, and what was found where it does not."""

    law: str
    spec: str
    holds: bool
    detail: str = ""


Law = Callable[[Any], None]


def require(holds: Any, fact: str) -> None:
    """Raise `Broken` with the fact unless it holds."""
    if not bool(holds):
        raise Broken(fact)


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=tolerance))


@contextmanager
def no_global_randomness() -> Iterator[None]:
    """Requires that what runs inside leaves the global random states of torch, numpy and Python alone."""
    with torch.random.fork_rng(devices=[]):
        _ = torch.rand(1), np.random.random(), random.random()  # noqa: NPY002 - who seeds must not find its own last state
        before = _random_states()
        yield
        require(_random_states() == before, "a global random state (of torch, numpy or Python) was used")


def _random_states() -> tuple[Any, ...]:
    numpys = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return torch.random.get_rng_state().tolist(), numpys["key"].tolist(), numpys["pos"], random.getstate()
