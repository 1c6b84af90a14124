"""SOAP: what it is for, what its first step does, and that a checkpoint holds all of it."""

import pytest
import torch

from training.run import checkpoint, soap
from wsi_denoise.network.irunet import IRUNet

pytestmark = pytest.mark.training


def badly_conditioned(side: int, generator: torch.Generator) -> torch.Tensor:
    turn = torch.linalg.qr(torch.randn(side, side, generator=generator))[0]
    return turn @ torch.diag(torch.logspace(0, -2, side)) @ turn.T


def remaining(make) -> float:
    """Return what is left of a quadratic's loss after 300 steps; neither of its two axes is one of the parameter's."""
    generator = torch.Generator().manual_seed(3)
    left, right = badly_conditioned(6, generator), badly_conditioned(18, generator)
    target = torch.randn(6, 2, 3, 3, generator=generator)
    kernel = torch.nn.Parameter(torch.zeros(6, 2, 3, 3))
    optimizer = make([kernel])

    def loss() -> torch.Tensor:
        return (left @ (kernel - target).view(6, -1) @ right).square().sum()

    before = loss().item()
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return loss().item() / before


def test_it_gets_far_where_the_axes_are_not_those_of_the_parameters():
    ours = remaining(lambda parameters: soap.SOAP(parameters, lr=0.05, weight_decay=0.0))
    adam = remaining(lambda parameters: torch.optim.Adam(parameters, lr=0.05, betas=(0.95, 0.95)))
    assert ours < 0.2 * adam


def test_a_bias_is_plain_adam_and_the_first_step_only_looks():
    first = [torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2)]
    ours = soap.SOAP(first[:1], lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    adam = torch.optim.Adam(first[1:], lr=0.01, betas=(0.9, 0.99))
    for step in range(6):
        for parameter, optimizer in zip(first, (ours, adam), strict=True):
            optimizer.zero_grad()
            parameter.pow(4).sum().backward()
            if step == 0 and optimizer is adam:
                continue
            before = parameter.detach().clone()
            optimizer.step()
            assert torch.equal(before, parameter) == (step == 0)
    assert torch.allclose(first[0], first[1], atol=1e-6)


def test_the_eigenvectors_stay_orthogonal_and_in_order():
    generator = torch.Generator().manual_seed(5)
    kernel = torch.nn.Parameter(torch.randn(4, 3, 3, 3, generator=generator))
    optimizer = soap.SOAP([kernel], lr=1e-3, every=2)
    scales = torch.logspace(0, -2, 27).view(1, 3, 3, 3)
    for _ in range(60):
        kernel.grad = torch.randn(kernel.shape, generator=generator) * scales
        optimizer.step()
    state = optimizer.state[kernel]
    for name, side in (("row", 4), ("column", 27)):
        vectors = state[f"{name}s"]
        assert torch.allclose(vectors.T @ vectors, torch.eye(side), atol=1e-4)
    values = torch.diagonal(state["columns"].T @ state["column_covariance"] @ state["columns"])
    assert values[:5].tolist() == pytest.approx(sorted(values[:5].tolist(), reverse=True), rel=0.3)
    # The square of a gradient stands with its own direction: the largest first, as the eigenvalues.
    assert float(state["exp_avg_sq"][:, 0].mean()) > 10 * float(state["exp_avg_sq"][:, -1].mean())


def test_a_checkpoint_holds_all_of_it(tmp_path):
    def step(network: IRUNet, optimizer: torch.optim.Optimizer, number: int) -> None:
        x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        (network(x) - x.flip(1)).square().mean().backward()
        optimizer.step()

    torch.manual_seed(1)
    network = IRUNet(2)
    optimizer = soap.SOAP(network.parameters(), lr=1e-3)
    average = checkpoint.Averaged(network, 0.9)
    for number in range(13):
        step(network, optimizer, number)
    checkpoint.save(tmp_path / "run", network, average, optimizer, {})
    other = IRUNet(2)
    resumed = soap.SOAP(other.parameters(), lr=1e-3)
    checkpoint.restore(tmp_path / "run", other, checkpoint.Averaged(other, 0.9), resumed)
    # Beyond the next update of the eigenvectors, at step 20.
    for number in range(13, 26):
        step(network, optimizer, number)
        step(other, resumed, number)
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_parameters_of_one_shape_are_stepped_together_as_they_are_alone():
    # Square matrices: one gradient determines all eigenvectors. In a 4 x 27 matrix most directions have no gradient
    # yet, rounding chooses their basis, and stepping together and alone differ by 6e-3 on some processors.
    generator = torch.Generator().manual_seed(7)
    together = [torch.nn.Parameter(torch.randn(8, 2, 2, 2, generator=generator)) for _ in range(3)]
    alone = [torch.nn.Parameter(parameter.detach().clone()) for parameter in together]
    optimizers = [
        soap.SOAP(together, lr=0.01, every=3),
        *(soap.SOAP([parameter], lr=0.01, every=3) for parameter in alone),
    ]
    for _ in range(8):
        for ours, theirs in zip(together, alone, strict=True):
            ours.grad = torch.randn(ours.shape, generator=generator)
            theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for ours, theirs in zip(together, alone, strict=True):
        assert torch.allclose(ours, theirs, rtol=0.0, atol=1e-4)
