"""An adapter to auto_LiRPA: its certificates in this laboratory, where it is installed."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, Literal

import torch
from torch import Tensor

from brinell.certify.certificate import Certificate
from brinell.certify.graph import Unsupported, without_draws
from brinell.certify.problem import margin_rows
from brinell.core.network import module_of
from brinell.core.threat import Ball

FAST, GENERAL = "patches", "matrix"
"""How the library carries convolutions back: the second way takes shapes and poolings that the first one refuses."""


class AutoLiRPA(Certificate, name="auto_lirpa"):
    """The share of samples that the library auto_LiRPA proves to be classified correctly everywhere in a ball.

    For graphs and methods that `ibp` and `crown` do not have, such as other activations and optimised slopes (`alpha-CROWN`). Without
    the library, or where it cannot take a network, every sample that is not wrong already is unknown, and the reason says why. Its
    bounds leave rounding out; margins below 1e-5 of the largest logit are taken as not proved.

    Arguments:
        threat: the ball; in Linf it is cut by the domain, in L1 and L2 it is not. method: as the library calls it.

    Readings: see `Certificate`.

    References: Xu et al. (2020), "Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond", NeurIPS,
        arXiv 2002.12920; https://github.com/Verified-Intelligence/auto_LiRPA.

    Example:
        >>> import brinell as br
        >>> br.parse("auto_lirpa(method='CROWN-IBP', threat=ball(eps=0.01))").method
        'CROWN-IBP'
    """

    method: Literal["IBP", "CROWN-IBP", "CROWN", "alpha-CROWN", "forward", "forward+backward"] = "CROWN"

    @property
    def cost(self) -> tuple[int, int]:
        return 5, 1000

    def followed(self, net: Any, x: Tensor) -> Callable[[Tensor], Tensor]:
        return _bounded(net, x, FAST)

    def floors(self, net: Any, x: Tensor, y: Tensor, ball: Ball) -> tuple[Tensor, Tensor | None]:
        try:
            return self._floors(net, x, y, ball, FAST), None
        except Unsupported:
            return self._floors(net, x, y, ball, GENERAL), None

    def _floors(self, net: Any, x: Tensor, y: Tensor, ball: Ball, mode: str) -> Tensor:
        """(n,) lower bounds of the least margin, less what rounding may be worth."""
        bounded = _bounded(net, x, mode)
        with torch.no_grad():
            logits = bounded(x)
        ends: dict[str, Any] = dict(zip(("x_L", "x_U"), ball.box(x), strict=True)) if ball.norm == math.inf else {}
        rows = margin_rows(y, logits.shape[1]).to(x)
        with _foreign(), torch.set_grad_enabled(self.method.startswith("alpha")):  # only slopes that are optimised need gradients
            from auto_LiRPA import BoundedTensor, PerturbationLpNorm  # pyright: ignore[reportMissingImports]

            batch = BoundedTensor(x, PerturbationLpNorm(norm=ball.norm, eps=ball.eps, **ends))
            lower, _ = bounded.compute_bounds(x=(batch,), C=rows, method=self.method, bound_upper=False)
        return lower.detach().amin(1) - 1e-5 * logits.abs().amax(1)


def _bounded(net: Any, x: Tensor, mode: str) -> Any:
    """The network as the library's own module, which gives the same logits.

    Raises:
        Unsupported: the library is missing, or cannot take the network.
    """
    module = module_of(net)
    if module is None:
        raise Unsupported(f"auto_LiRPA needs a torch.nn.Module; {type(net).__name__} is none")
    with _foreign(), without_draws(x.device):
        from auto_LiRPA import BoundedModule  # pyright: ignore[reportMissingImports]

        return BoundedModule(module, x[:1], bound_opts={"conv_mode": mode}, device=str(x.device), verbose=False)


@contextmanager
def _foreign() -> Iterator[None]:
    """Keeps the library's prints and warnings (it traces by torch.jit, which is deprecated) away from ours, and names its errors."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        except Unsupported:
            raise
        except ImportError as error:
            raise Unsupported(
                f"auto_LiRPA cannot be imported ({error}); install it from its repository, or use crown or ibp, which need nothing"
            ) from error
        except Exception as error:  # another library's errors, of any type
            reason = (str(error).splitlines() or [""])[0]
            raise Unsupported(f"auto_LiRPA cannot bound this network ({type(error).__name__}: {reason})") from error
