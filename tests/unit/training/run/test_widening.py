"""A network made wider gives what it gave before, and its copies do not stay alike."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.run import widening  # noqa: E402 - after the skip
from wsi_denoise.network.irunet import IRUNet  # noqa: E402


@pytest.mark.parametrize("filters", [4, 5, 8, 11, 12])
def test_a_widened_network_gives_the_same_output(filters):
    torch.manual_seed(3)
    small = IRUNet(4, residual=True, full_skip=True).eval()
    torch.nn.init.normal_(small.tail.weight)
    for parameter in small.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.1)
    large = IRUNet(filters, residual=True, full_skip=True).eval()
    large.load_state_dict(widening.widened(small.state_dict(), filters, 1))
    x = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        assert (small.last(x) - large.last(x)).abs().max() < 1e-5
        assert small.last(x).abs().max() > 0.1


def test_the_two_copies_of_a_channel_learn_differently():
    torch.manual_seed(4)
    small = IRUNet(4, residual=True, full_skip=True)
    torch.nn.init.normal_(small.tail.weight)
    large = IRUNet(8, residual=True, full_skip=True)
    large.load_state_dict(widening.widened(small.state_dict(), 8, 1))
    large(torch.rand(2, 3, 32, 32)).square().mean().backward()
    for name in ("head", "red1.a", "enc3.b", "up0", "dec0.c"):
        gradient = large.get_parameter(f"{name}.weight").grad
        gives = 1 if name.startswith("up") else 0
        first, second = gradient.chunk(2, dim=gives)
        assert not torch.allclose(first, second, rtol=1e-2), name


def test_a_network_cannot_be_made_narrower():
    with pytest.raises(ValueError, match="8 filters cannot be widened to 4"):
        widening.widened(IRUNet(8).state_dict(), 4, 1)
