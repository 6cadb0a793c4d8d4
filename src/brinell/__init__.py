"""brinell: how far do a network's answers yield when its inputs are perturbed, why, what can be guaranteed, and how to harden it.

Everything a script needs is here and is imported when it is first used, so that `import brinell` costs nothing:

    >>> import brinell as br
    >>> attack = br.parse("pgd(steps=40, threat=ball(norm=inf, eps=8/255))")
    >>> attack == br.PGD(steps=40, threat=br.Ball(norm=float("inf"), eps=8 / 255))
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "Attack": "core.perturbation", "Attempt": "core.perturbation", "Corruption": "core.perturbation", "Perturbation": "core.perturbation",
    "Ball": "core.threat", "Threat": "core.threat", "BrinellError": "core.errors", "Component": "core.component",
    "Dataset": "core.dataset", "Draws": "core.draws", "Network": "core.network", "Probe": "core.probe", "Needs": "core.probe",
    "Reading": "core.measurement", "Finding": "core.measurement", "Summary": "core.summary", "Hardening": "core.hardening",
    "derive": "core.draws", "parse": "core.component", "load_dataset": "core.dataset", "record": "core.record",
    "load_network": "models.loading", "save_network": "models.loading", "Lab": "engine.lab", "Table": "core.lab",
    "assert_robust": "engine.assertion",
    "PGD": "perturb.pgd", "FGSM": "perturb.fgsm", "Fit": "harden.fit",
    "class_selectivity": "probe.selectivity",
}  # fmt: skip

__all__ = ["__version__", *_PLACES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from brinell.core.component import Component as Component
    from brinell.core.component import parse as parse
    from brinell.core.dataset import Dataset as Dataset
    from brinell.core.dataset import load_dataset as load_dataset
    from brinell.core.draws import Draws as Draws
    from brinell.core.draws import derive as derive
    from brinell.core.errors import BrinellError as BrinellError
    from brinell.core.network import Network as Network
    from brinell.core.perturbation import Attack as Attack
    from brinell.core.perturbation import Corruption as Corruption
    from brinell.core.perturbation import Perturbation as Perturbation
    from brinell.core.threat import Ball as Ball
    from brinell.core.threat import Threat as Threat


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'brinell' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"brinell.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
