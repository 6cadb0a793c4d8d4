"""An adapter to auto_LiRPA: its certificates in this laboratory, where it is installed."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from brinell.certify.certificate import Certificate
from brinell.certify.graph import Unsupported
from brinell.certify.problem import margin_rows
from brinell.core.network import module_of
from brinell.core.threat import Ball


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

    def floors(self, net: Any, x: Tensor, y: Tensor, ball: Ball) -> tuple[Tensor, Tensor | None]:
        try:
            from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise Unsupported(
                f"auto_LiRPA cannot be imported ({error}); install it from its repository, or use crown or ibp, which need nothing"
            ) from error
        module = module_of(net)
        if module is None:
            raise Unsupported(f"auto_LiRPA needs a torch.nn.Module; {type(net).__name__} is none")
        ends: dict[str, Any] = dict(zip(("x_L", "x_U"), ball.box(x), strict=True)) if ball.norm == math.inf else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it traces by torch.jit, which is deprecated
            try:
                bounded = BoundedModule(module, x[:1], device=str(x.device), verbose=False)
                classes = module(x[:1]).shape[1]
                batch = BoundedTensor(x, PerturbationLpNorm(norm=ball.norm, eps=ball.eps, **ends))
                rows = margin_rows(y, classes).to(x)
                lower, _ = bounded.compute_bounds(x=(batch,), C=rows, method=self.method, bound_upper=False)
            except Exception as error:  # another library's errors, of any type
                reason = (str(error).splitlines() or [""])[0]
                raise Unsupported(f"auto_LiRPA cannot bound this network ({type(error).__name__}: {reason})") from error
        with torch.no_grad():
            spare = 1e-5 * module(x).abs().amax(1)
        return lower.detach().amin(1) - spare, None
