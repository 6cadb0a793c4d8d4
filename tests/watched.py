"""What tests of attacks share: a network that remembers what it was asked, and balls in a domain without walls."""

import math

from brinell.core.threat import Ball


class Watch:
    """A network that remembers what it was asked, (points, with gradient)."""

    def __init__(self, net):
        self.net, self.asked = net, []

    def __call__(self, z):
        self.asked.append((z.detach().clone(), z.requires_grad))
        return self.net(z)

    @property
    def rows(self):
        """The sizes of the batches."""
        return [len(z) for z, _ in self.asked]

    @property
    def climbed(self):
        """The points at which a gradient was asked for."""
        return [z for z, gradient in self.asked if gradient]


def free(norm, eps) -> Ball:
    """A ball in a domain without walls."""
    return Ball(norm=norm, eps=eps, low=-math.inf, high=math.inf)
