"""The shapes that batches of samples have; checked at run time under test (jaxtyping with beartype), free otherwise."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

X = Float[Tensor, "n *d"]
"""n samples in the data's own units (images: NCHW in [0, 1]); normalisation lives inside the network."""
Y = Int[Tensor, "n"]
"""n labels in 0..K-1."""
XMask = Bool[Tensor, "n *d"]
"""Entries of the samples."""
Logits = Float[Tensor, "n k"]
PerSample = Float[Tensor, "n"]
Mask = Bool[Tensor, "n"]
