"""Denoisers of other authors, implemented from their papers to be trained on the same samples. They are not shipped.

``dncnn``
    Zhang, Zuo, Chen, Meng and Zhang, "Beyond a Gaussian denoiser", TIP 2017, the blind colour network: 20 layers of 64
    channels, batch normalisation, the noise as output.
``residual-mid``
    Jifara, Jiang, Rho, Cheng and Liu, "Medical image denoising using convolutional neural network: a residual learning
    approach", J. Supercomputing 2019: the same, shallower. The freely available text states the kinds of layers,
    residual and batch normalisation, but not the number of layers: 10 is our choice.
``dran``
    Sharif, Naqvi and Biswas, "Learning medical image denoising with deep dynamic residual attention network",
    Mathematics 8(12), 2020: three blocks of five dynamic convolutions (a mixture of four kernels that each image
    chooses by its mean features), a gated convolution beside each block, tanh of the noise as output. Blocks do not
    share weights, as in the paper's text; in its authors' code they do.

All take and return (batch, 3, height, width) in [0, 1], of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 64
KERNELS, TEMPERATURE = 4, 34.0
"""Number of kernels of a dynamic convolution, and temperature of the softmax over them (Chen et al., CVPR 2020)."""


class _Residual(nn.Module):
    """Subtracts the noise that a network predicts."""

    def __init__(self, noise: nn.Module) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x - self.noise(x)
        return output if self.training else output.clamp(0.0, 1.0)


def _plain(layers: int) -> nn.Module:
    """Return a chain of 3x3 convolutions, with batch normalisation except for the first and the last."""

    def parts() -> Iterator[nn.Module]:
        channels = [3, *[CHANNELS] * (layers - 1), 3]
        for number, (taken, given) in enumerate(pairwise(channels), 1):
            inner = 1 < number < layers
            yield nn.Conv2d(taken, given, 3, padding=1, bias=not inner)
            if inner:
                yield nn.BatchNorm2d(given)
            if number < layers:
                yield nn.ReLU()

    return nn.Sequential(*parts())


class _Dynamic(nn.Module):
    """A 3x3 convolution with a mixture of kernels, whose weights a small network derives from the mean features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 4, bias=False)
        self.choose = nn.Linear(channels // 4, KERNELS, bias=False)
        self.kernels = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(KERNELS))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.squeeze(x.mean(dim=(2, 3))))
        shares = functional.softmax(self.choose(hidden).float() / TEMPERATURE, dim=1)
        count, channels, height, width = x.shape
        kernels = torch.stack([kernel.weight for kernel in self.kernels])
        biases = torch.stack([kernel.bias for kernel in self.kernels])
        mixed = torch.einsum("bk,koihw->boihw", shares, kernels).reshape(count * channels, channels, 3, 3)
        bias = (shares @ biases).reshape(-1)
        # Every image has its own kernel: one convolution with one group per image.
        found = functional.conv2d(x.reshape(1, -1, height, width), mixed, bias, padding=1, groups=count)
        return found.reshape(count, channels, height, width)


class _Gate(nn.Module):
    """The noise gate: features times a mask between 0 and 1, which is computed from them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")
        self.mask = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.features(x) * torch.sigmoid(self.mask(x)), 0.2)


class _Attention(nn.Module):
    """Five dynamic convolutions with a gate beside them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        parts = [part for _ in range(5) for part in (_Dynamic(channels), nn.BatchNorm2d(channels), nn.ReLU())]
        self.body = nn.Sequential(*parts)
        self.gate = _Gate(channels)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x) + self.gate(x)
        return found


def _dran() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False), nn.ReLU())
    last = nn.Sequential(nn.Conv2d(CHANNELS, 3, 3, padding=1, bias=False), nn.Tanh())
    return nn.Sequential(first, *(_Attention(CHANNELS) for _ in range(3)), last)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dncnn": lambda: _plain(20),
    "residual-mid": lambda: _plain(10),
    "dran": _dran,
}


def built(name: str) -> nn.Module:
    """Return one of `NETWORKS` with random weights. Its last convolution is zero: it starts as the identity."""
    noise = NETWORKS[name]()
    convolutions = [module for module in noise.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.zeros_(convolutions[-1].weight)
    return _Residual(noise)
