import torch
from torch import nn

from brinell.harden.average import Average


def module() -> nn.Sequential:
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    made.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    return made


def test_weights_and_running_statistics_are_averaged_and_the_rest_copied():
    net = module()
    average = Average(net, 0.5)
    first = {name: value.clone() for name, value in average.tensors.items()}
    with torch.no_grad():
        net[0].weight += 1
        net[1].running_mean += 2
        net[1].num_batches_tracked += 3
    average.update(net, step=100)  # beyond the ramp: (1 + 100) / (10 + 100) > 0.5
    assert torch.allclose(average.tensors["0.weight"], first["0.weight"] + 0.5)
    assert torch.allclose(average.tensors["1.running_mean"], torch.ones(2))
    assert average.tensors["1.num_batches_tracked"] == 3
    assert torch.equal(average.tensors["mask"], net.mask), "minus infinity in a mask stays what it is"


def test_the_ramp_holds_until_the_decay_is_reached():
    net = module()
    average = Average(net, 0.5)
    with torch.no_grad():
        start = net[0].bias.clone()
        net[0].bias += 1
    expected = 0.0
    for step in range(1, 12):
        average.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        assert torch.allclose(average.tensors["0.bias"], start + expected)


def test_the_average_is_a_copy():
    net = module()
    average = Average(net, 0.9)
    with torch.no_grad():
        net[0].weight.zero_()
    assert average.tensors["0.weight"].abs().sum() > 0
