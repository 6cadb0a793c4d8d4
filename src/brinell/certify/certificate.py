"""Certificates: three-valued verdicts on samples, from lower bounds of their margins over a ball."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brinell.certify.graph import Unsupported, faithful, trace
from brinell.core.draws import Draws
from brinell.core.measurement import Bound, Reading
from brinell.core.network import answered
from brinell.core.probe import SAFE, UNKNOWN, UNSAFE, Certifier, Needs, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.core.threat import Ball

_FINE, _OUTSIDE, _UNLIKE = 0, 1, 2


class Certificate(Certifier):
    """A certifier by bounds: what it says of every clean sample, and how far from an answer it is.

    - safe: the least margin over the ball, min over z of z_y - max_k z_k, is proved to be above 0;
    - unsafe: a counterexample is known: the clean sample is wrong, or the point of the ball where the bound is least is;
    - unknown: neither.

    Readings, of the clean cell alone:

    - `certified`, LOWER: the share that is safe; its array (axis `sample`, in the order of ids) holds the verdicts 1, -1 (unsafe) and
      0 (unknown). Where nothing is proved the reason says that it is vacuous, and by how much, or which layer has no bounds;
    - `refuted`, LOWER: the share that is unsafe; `undecided`: the share that is unknown;
    - `certified_margin`, LOWER: the mean over samples of the lower bound of the least margin, with the bounds as array.

    The ball is taken larger by the rounding that `Ball.contains` forgives, so that every point the lab counts as inside is covered.
    Samples outside the ball's domain are unknown, and so are those at which the traced graph does not give the network's own logits
    (a network that is random behind torch's back; one that draws from torch's generators is refused by `trace`).
    """

    threat: Ball = Ball()

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    def floors(self, net: Any, x: Tensor, y: Tensor, ball: Ball) -> tuple[Tensor, Tensor | None]:
        """(n,) lower bounds of the least margin of y over the ball, and (n, *d) points that may be counterexamples, or None.

        Raises:
            Unsupported: the network has no bounds.
        """
        raise TypeError(f"{type(self).__name__} does not say how it bounds margins")

    def followed(self, net: Any, x: Tensor) -> Callable[[Tensor], Tensor]:
        """What the bounds are those of; a sample at which it does not give the network's own logits stays unknown.

        Raises:
            Unsupported: the network has no bounds.
        """
        return trace(net, x)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        if view.z is not view.x or view.net is None:
            return Tallies({"place": Max.of(perturbed=torch.tensor(1))})
        x, y, ball = view.x.contiguous(), view.y, self.threat
        wrong = ~(answered(view.logits) & (view.logits.argmax(1) == y))
        verdict = torch.where(wrong, UNSAFE, UNKNOWN)
        floor = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
        state = torch.full_like(y, _OUTSIDE)
        parts: dict[str, Tally] = {"place": Max.of(perturbed=torch.tensor(0))}
        inside = ((x >= ball.low) & (x <= ball.high)).flatten(1).all(1)
        try:
            if bool(inside.any()):
                self._judge(view, x, inside, verdict, floor, state)
        except Unsupported as error:
            parts["reason"] = Max({"text": torch.tensor(list(str(error).encode()), dtype=torch.uint8)})
        parts["rows"] = Rows.of(id=view.ids, verdict=verdict.to(torch.int8), floor=floor, state=state.to(torch.int8))
        return Tallies(parts)

    def _judge(self, view: View, x: Tensor, inside: Tensor, verdict: Tensor, floor: Tensor, state: Tensor) -> None:
        """Fill in what is known of the samples inside the domain."""
        ball = self.threat.replace(eps=self.threat.eps + self.threat.slack(x))
        like = faithful(self.followed(view.net, x), view.logits, x)
        state[inside] = torch.where(like[inside], _FINE, _UNLIKE)
        rows = inside & like
        if not bool(rows.any()) or view.net is None:
            return
        x, y = x[rows], view.y[rows]
        floors, points = self.floors(view.net, x, y, ball)
        floor[rows] = floors.double()
        said = torch.where(verdict[rows] == UNSAFE, UNSAFE, torch.where(floors > 0, SAFE, UNKNOWN))
        if points is not None:
            with torch.no_grad():
                broken = (view.net(points).argmax(1) != y) & self.threat.contains(x, points)
            said = torch.where(broken & (said == UNKNOWN), UNSAFE, said)
        verdict[rows] = said

    def read(self, tally: Tally) -> list[Reading]:
        if tally.parts and int(tally.parts["place"]["perturbed"]):
            return []
        if "rows" not in tally.parts:
            return [Reading.undefined("certified", "there is no sample to certify")]
        rows = {name: value.numpy() for name, value in Rows(tally.parts["rows"].values).sorted().values.items()}
        verdict, floor, n = rows["verdict"], rows["floor"], len(rows["id"])
        safe = float(np.mean(verdict == SAFE))
        why = self._why(tally, rows)
        share = Reading("certified", safe, bound=Bound.LOWER, n=n, array=verdict, axis="sample", reason=why)
        refuted = Reading("refuted", float(np.mean(verdict == UNSAFE)), bound=Bound.LOWER, n=n)
        undecided = Reading("undecided", float(np.mean(verdict == UNKNOWN)), n=n)
        if not np.isfinite(floor).all():
            margin = Reading.undefined("certified_margin", why or "the bound of some samples is not finite", n=n)
        else:
            margin = Reading("certified_margin", float(floor.mean()), bound=Bound.LOWER, n=n, array=floor, axis="sample")
        return [share, refuted, undecided, margin]

    def _why(self, tally: Tally, rows: dict[str, np.ndarray]) -> str:
        if "reason" in tally.parts:
            return f"unknown: {bytes(tally.parts['reason']['text'].tolist()).decode()}"
        said = []
        for code, words in (
            (_OUTSIDE, f"lie outside the domain of {self.threat.spec()}"),
            (_UNLIKE, "have logits the traced graph does not give"),
        ):
            count = int((rows["state"] == code).sum())
            if count:
                said.append(f"{count} samples {words}")
        if not (rows["verdict"] == SAFE).any():
            most = float(rows["floor"].max())
            said.insert(
                0, f"vacuous: no sample is proved safe (the largest lower bound of a margin is {most:.3g}; above 0 would be a proof)"
            )
        return "; ".join(said)
