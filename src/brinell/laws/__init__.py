"""The contract every item meets, as laws that run on any component, third-party ones too.

    >>> from brinell.core.threat import Ball
    >>> all(outcome.holds for outcome in check(Ball(norm=2, eps=0.5)))
    True

Each law is a function that raises `Broken` with the fact when it does not hold. `laws_of` says which laws an item has to meet;
`specimens` gives ready-made components to try an item with; `calibrate` tries all there is on this machine.
"""

from brinell.laws.architecture import builds
from brinell.laws.calibration import calibrate
from brinell.laws.contract import LAWS, check, laws_of, text_round_trip
from brinell.laws.hardening import hardening_keeps_its_argument
from brinell.laws.law import Broken, Law, Outcome, require
from brinell.laws.perturbation import (
    flips_where_it_must,
    input_untouched,
    ladder_grows,
    same_draws_same_result,
    stays_in_threat,
    takes_any_images,
)
from brinell.laws.probe import sample_order_is_irrelevant, single_agrees_with_double, tally_is_a_monoid
from brinell.laws.source import samples_are_stable
from brinell.laws.specimen import every, images, linear_specimen, part, specimens, view
from brinell.laws.threat import projection, samples_inside, steepest_is_dual

__all__ = [
    "LAWS", "Broken", "Law", "Outcome", "builds", "calibrate", "check", "every", "flips_where_it_must", "hardening_keeps_its_argument",
    "images", "input_untouched", "ladder_grows", "laws_of", "linear_specimen", "part", "projection", "require",
    "same_draws_same_result", "sample_order_is_irrelevant", "samples_are_stable", "samples_inside", "single_agrees_with_double",
    "specimens", "stays_in_threat", "steepest_is_dual", "takes_any_images", "tally_is_a_monoid", "text_round_trip", "view",
]  # fmt: skip
