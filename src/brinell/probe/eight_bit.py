"""Eight bits: does a wrong answer survive when the point is written to an image file?"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.confidence import proportion
from brinell.core.draws import Draws
from brinell.core.measurement import Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.core.threat import Ball

LEVELS = 255


def rounded(x: Tensor, z: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
    """The points of z with entries low + k (high - low) / 255, each entry at the nearest k, and at the next k on the side of x.

    The second lies as near to x as z, entry by entry, in every norm, where x itself is such a point.

    Example:
        >>> x, z = torch.full((1, 2), 100 / 255), torch.tensor([[100.7 / 255, 98.4 / 255]])
        >>> [(point * 255).round().tolist() for point in rounded(x, z, Ball())]
        [[[101.0, 98.0]], [[100.0, 99.0]]]
    """
    place, home = (_level(points, ball) for points in (z, x))
    inward = torch.where(place > home, (place + 1e-3).floor(), (place - 1e-3).ceil())  # a thousandth: rounding of k / 255
    step = (ball.high - ball.low) / LEVELS
    return tuple((ball.low + level * step).clamp(ball.low, ball.high).to(z.dtype) for level in (place.round(), inward))  # pyright: ignore[reportReturnType]


def _level(x: Tensor, ball: Ball) -> Tensor:
    return (x.double() - ball.low) * (LEVELS / (ball.high - ball.low))


class EightBit(Probe, name="eight_bit"):
    """Rounds wrong points to 256 grey levels: is a claimed success one of arithmetic, or of an image that could be saved?

    Readings of each cell whose perturbation has a ball in a domain with two ends, on samples whose own entries are grey levels (to a
    hundredth of one; UNDEFINED elsewhere: such data are no pixels):

    - `eight_bit_lost`: of the samples that were moved and are wrong, the share for which neither the nearest grey levels nor those
      towards the sample (`rounded`) give a point of the same ball that is wrong. UNDEFINED where no sample is.

    A loss does not make the measured answer right: robust accuracy is defined by the ball and not by file formats. It says how much of it
    vanishes for an attacker who must hand in a file. Rounding to the nearest level leaves an L2 ball of ordinary size (it adds noise of
    length sqrt(D / 12) / 255), rounding towards the sample never leaves any.

    Cost: up to two forward passes of each such sample, in every such cell; a plan, which counts the most, leaves them out.

    Arguments:
        confidence: of the interval, which is Clopper-Pearson's.

    References: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705 (section on verifying that examples
        obey the threat model); Bonnet, Furon & Bas (2020), "What if Adversarial Samples were Digital Images?", IH&MMSec (that rounding
        undoes small perturbations). Rounding towards the sample as the second attempt is ours.

    Example:
        >>> import brinell as br
        >>> x, y = torch.randint(0, 256, (20, 1, 6, 6)) / 255, torch.arange(20) % 2
        >>> net, attack = br.load_network("mlp(widths=(8,))", shape=(1, 6, 6), classes=2), br.parse("pgd(steps=5)")
        >>> row = br.Lab().measure(net, (x, y), [attack], ["eight_bit"]).row("eight_bit_lost", perturbation=attack)
        >>> row["status"] in ("ok", "undefined")
        True
    """

    confidence: float = Field(default=0.95, gt=0, lt=1)

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        ball = view.threat
        if view.z is view.x or view.net is None or not isinstance(ball, Ball) or not math.isfinite(ball.high - ball.low):
            return Tallies({"place": Max.of(asked=torch.tensor(0))})
        away = _level(view.x, ball).flatten(1)
        pixels = (away - away.round()).abs().amax(1) <= 1e-2
        wrong = (view.logits.argmax(1) != view.y) & (view.z != view.x).flatten(1).any(1)
        lost = torch.zeros_like(wrong)
        left = (wrong & pixels).nonzero().squeeze(1)
        for place in range(2):
            if not len(left):
                break
            x, y = view.x[left], view.y[left]
            point = rounded(x, view.z[left], ball)[place]
            with torch.no_grad():
                kept = (view.net(point).argmax(1) != y) & ball.contains(x, point)
            lost[left] = ~kept
            left = left[~kept]
        seen = Rows.of(id=view.ids, pixels=pixels, wrong=wrong, lost=lost)
        return Tallies({"place": Max.of(asked=torch.tensor(1)), "seen": seen})

    def read(self, tally: Tally) -> list[Reading]:
        name = "eight_bit_lost"
        if not tally.parts or not int(tally.parts["place"]["asked"]):
            return []
        rows = {key: column.numpy() for key, column in Rows(tally.parts["seen"].values).sorted().values.items()}
        n, chosen = len(rows["id"]), rows["lost"][rows["wrong"]]
        if not rows["pixels"].all():
            why = f"{n - int(rows['pixels'].sum())} of {n} samples are not made of 256 grey levels themselves"
            return [Reading.undefined(name, why, n=n)]
        if not len(chosen):
            return [Reading.undefined(name, "no sample was moved to a wrong answer", n=n)]
        low, high = proportion(chosen, self.confidence)
        return [Reading(name, float(chosen.mean()), low=low, high=high, confidence=self.confidence, n=len(chosen))]
