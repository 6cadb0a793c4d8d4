"""Which laws a component has to meet, and whether it does."""

from __future__ import annotations

from brinell.core.component import Component, parse
from brinell.core.dataset import Source
from brinell.core.hardening import Hardening
from brinell.core.network import Architecture
from brinell.core.perturbation import Attack, Perturbation
from brinell.core.probe import Probe
from brinell.core.threat import Ball, Threat
from brinell.laws.architecture import builds
from brinell.laws.hardening import hardening_keeps_its_argument
from brinell.laws.law import Law, Outcome, require
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
from brinell.laws.threat import projection, samples_inside, steepest_is_dual


def check(component: Component) -> list[Outcome]:
    """Try every law that this component has to meet."""
    outcomes = []
    for law in laws_of(component):
        try:
            law(component)
        except Exception as error:  # a third party's component may raise anything; whatever it is, the law does not hold
            outcomes.append(Outcome(law.__name__, component.spec(), False, f"{type(error).__name__}: {error}"))
        else:
            outcomes.append(Outcome(law.__name__, component.spec(), True))
    return outcomes


def laws_of(component: Component) -> tuple[Law, ...]:
    """The laws for this kind of component; every component has to meet `text_round_trip`."""
    for kind, laws in LAWS.items():
        if isinstance(component, kind):
            ball = isinstance(component, Attack) and isinstance(component.threat, Ball)
            return (text_round_trip, *laws, *((flips_where_it_must,) if ball else ()))
    return (text_round_trip,)


def text_round_trip(component: Component) -> None:
    """The spec and the full spec both parse to an equal component with the same hash and key."""
    for text in (component.spec(), component.spec(full=True)):
        again = parse(text)
        require(again == component and hash(again) == hash(component), f"{text} parses to {again!r}")
        require(again.key() == component.key(), f"{text}: keys {again.key()} and {component.key()} differ")


LAWS: dict[type[Component], tuple[Law, ...]] = {
    Threat: (samples_inside, projection, steepest_is_dual),
    Perturbation: (input_untouched, same_draws_same_result, stays_in_threat, takes_any_images, ladder_grows),
    Probe: (tally_is_a_monoid, sample_order_is_irrelevant, single_agrees_with_double),
    Source: (samples_are_stable,),
    Architecture: (builds,),
    Hardening: (hardening_keeps_its_argument,),
}
