"""The network is the paper's: size, arithmetic, stride and reach."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_denoise.network.irunet import IRUNet


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def network() -> IRUNet:
    torch.manual_seed(1)
    return IRUNet(4, residual=False).eval()


def test_sixteen_filters_have_the_papers_number_of_parameters():
    assert parameters(IRUNet()) == 123_379
    assert parameters(IRUNet(16, residual=True, full_skip=True)) == 123_379


@pytest.mark.shared
def test_agrees_with_the_authors_recorded_outputs(shared: Path):
    with np.load(shared / "reference" / "irunet_authors_weights.npz") as file:
        weights = {name: torch.from_numpy(file[name]) for name in file.files}
    with np.load(shared / "reference" / "irunet_authors_outputs.npz") as file:
        x, expected = file["x"], file["y"]
    network = IRUNet(16, residual=False).eval()
    network.load_state_dict(weights)
    with torch.inference_mode():
        y = network(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert np.abs(y - expected).max() < 1e-5


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("full_skip", [False, True])
def test_output_has_the_inputs_shape_and_range(residual, full_skip):
    network = IRUNet(4, residual=residual, full_skip=full_skip).eval()
    torch.nn.init.normal_(network.tail.weight, std=3.0)
    with torch.inference_mode():
        y = network(torch.rand(2, 3, 48, 80))
    assert y.shape == (2, 3, 48, 80)
    assert float(y.min()) >= 0.0
    assert float(y.max()) <= 1.0


def test_residual_network_starts_as_the_identity():
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(IRUNet(4, residual=True).eval()(x), x)


def test_residual_network_in_training_keeps_gradients_beyond_the_range():
    network = IRUNet(4, residual=True).train()
    network.tail.bias.data.fill_(2.0)
    network(torch.rand(1, 3, 16, 16)).sum().backward()
    assert float(network.tail.bias.grad.abs().min()) > 0


@pytest.mark.parametrize("side", [(97, 96), (96, 95), (8, 16)])
def test_other_sides_than_multiples_of_sixteen_are_refused(network, side):
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.rand(1, 3, *side))


def test_shift_by_the_stride_shifts_the_output_and_a_shift_by_one_does_not(network):
    x = torch.rand(1, 3, 320, 320)
    with torch.inference_mode():
        whole = network(x)[..., 128:192, 128:192]
        by_stride = network(x[..., 16:304, 16:304])[..., 112:176, 112:176]
        by_one = network(x[..., 1:305, 1:305])[..., 127:191, 127:191]
    assert float((whole - by_stride).abs().max()) < 1e-5
    assert float((whole - by_one).abs().max()) > 1e-3


def test_full_skip_changes_the_output():
    torch.manual_seed(2)
    plain, skipping = IRUNet(4), IRUNet(4, full_skip=True)
    skipping.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert float((plain.eval()(x) - skipping.eval()(x)).abs().max()) > 1e-3
