"""DeepFool: one step on a linear network, the classes it looks at, and the end of each sample."""

import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.network import Counted
from brinell.models.reference import linear_network

WEIGHT = derive(1, "weight", ids=range(5)).normal(16)
X = derive(0, "x", ids=range(8)).uniform(1, 4, 4, low=0.3, high=0.7)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def test_a_linear_network_falls_in_one_step():
    counted = Counted(NET)
    attempt = parse("deepfool(bisections=0, threat=ball(norm=2, eps=inf, low=-inf, high=inf))")(
        counted, X, Y, draws=derive(0, ids=range(8))
    )
    assert (NET(attempt.z).argmax(1) != Y).all()
    assert counted.forwards == 8 * 3  # clean, at x with gradients, and once more where it ends
    assert counted.backwards == 8 * 2 * 4  # once for each of the four wrong classes


def test_the_published_overshoot_is_two_percent():
    """Without the closing line search the point lies 2 % beyond the nearest boundary."""
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    net, x = linear_network(weight), torch.tensor([[0.4, 0.2]])
    attempt = parse("deepfool(bisections=0, threat=ball(norm=2, eps=inf, low=-inf, high=inf))")(
        net, x, torch.tensor([0]), draws=derive(0, ids=[0])
    )
    assert torch.allclose(attempt.z - x, 1.02 * 0.4 * torch.tensor([[-0.6, -0.8]]), atol=1e-6)


def test_only_the_likeliest_wrong_classes_are_weighed():
    """With one rival the boundary to the runner-up is taken, though another is nearer."""
    weight = torch.tensor([[4.0, 0.0], [3.9, 0.0], [0.0, 100.0]])  # at (1, 0): leads 0.1 over class 1, 4 over class 2
    net, x, y = linear_network(weight), torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    ball = "threat=ball(norm=2, eps=inf, low=-inf, high=inf)"
    one, two = (parse(f"deepfool(classes={k}, {ball})")(net, x, y, draws=derive(0, ids=[0])).z for k in (1, 2))
    assert (one - x).norm() > 0.9 and (two - x).norm() < 0.05
