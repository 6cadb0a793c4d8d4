import pytest
import torch

from brinell.perturb.colour import luma, painted


def test_luma_weighs_three_channels_and_averages_others():
    x = torch.tensor([0.5, 0.25, 1.0]).reshape(1, 3, 1, 1)
    assert luma(x).item() == pytest.approx(0.299 * 0.5 + 0.587 * 0.25 + 0.114)
    assert luma(x[:, :2]).item() == pytest.approx(0.375)
    assert luma(x[:, :1]).item() == 0.5
    assert x.flatten().tolist() == [0.5, 0.25, 1.0]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_are_painted_as_grey_images(channels):
    x, keep, paint = torch.rand(2, channels, 4, 5), torch.rand(2, 1, 4, 5), torch.rand(2, 3, 4, 5)
    z = painted(x, keep, paint)
    for at in range(channels):
        colour = (x[:, at : at + 1].expand(-1, 3, -1, -1) * keep + paint).clamp(0, 1)
        assert torch.allclose(z[:, at], colour.mean(1), atol=1e-6)
        assert torch.allclose(painted(x[:, at : at + 1].expand(-1, 3, -1, -1), keep, paint), colour)
