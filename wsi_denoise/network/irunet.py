"""IRUNet: a small U-shaped network of inception and reduction blocks (Gil Zuluaga et al., EMBC 2021).

::

    x ─ head ─┬─ red1 enc1 ─┬─ red2 enc2 ─┬─ red3 enc3 ─ red4 enc4 ─┐
              ┆             │             │                         │
              ┆             │             │            up3 dec3 ────┘
              ┆             │             └─ + ─ up2 dec2
              ┆             └─ + ─ up1 dec1
              └┄┄┄┄ (+) ┄ up0 dec0 ─ tail ─ output

Skips are additions after the decoder's inception block, at 1/4 and 1/2 resolution. The skip at 1/8 is omitted, as in
the authors' code. The dotted skip at full resolution is not in the paper. It is optional, has no parameters, and is off
by default.

Convolutions of stride 2 with a 3x3 kernel pad on the right and at the bottom only (TensorFlow's "same"). The network is
therefore equivariant to shifts by 16 pixels, and not exactly to smaller ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 16
"""Total stride of the network in pixels: sides are multiples of it."""


class _Inception(nn.Module):
    """3x3 (f), 3x3 (2f) and 3x3 dilated by 2 (f), each with ReLU, combined by a 1x1, plus the input."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(filters, filters, 3, padding=1)
        self.b = nn.Conv2d(filters, 2 * filters, 3, padding=1)
        self.c = nn.Conv2d(filters, filters, 3, padding=2, dilation=2)
        self.r = nn.Conv2d(4 * filters, filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        # `a` and `b` have the same input: one convolution with both kernels gives the same result faster.
        weight = torch.cat([self.a.weight, self.b.weight])
        bias = torch.cat([self.a.bias, self.b.bias])  # type: ignore[list-item]
        near = functional.conv2d(x, weight, bias, padding=1)
        joined: Tensor = self.r(functional.relu(torch.cat([near, self.c(x)], dim=1)))
        return joined + x


class _Reduction(nn.Module):
    """3x3 (f) and 3x3 (2f) of stride 2 and a 2x2 mean, combined by a 1x1, plus a 2x2 convolution of stride 2."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(filters, filters, 3, stride=2)
        self.b = nn.Conv2d(filters, 2 * filters, 3, stride=2)
        self.s = nn.Conv2d(filters, filters, 2, stride=2)
        self.r = nn.Conv2d(4 * filters, filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([self.a.weight, self.b.weight])
        bias = torch.cat([self.a.bias, self.b.bias])  # type: ignore[list-item]
        wide = functional.relu(functional.conv2d(functional.pad(x, (0, 1, 0, 1)), weight, bias, stride=2))
        joined: Tensor = self.r(torch.cat([wide, functional.avg_pool2d(x, 2)], dim=1))
        shortcut: Tensor = self.s(x)
        return joined + shortcut


class IRUNet(nn.Module):
    """The network: noisy patches in, denoised patches out.

    Parameters
    ----------
    filters : int
        Number of channels in hidden layers; 16 in the paper, with 123,379 parameters.
    residual : bool
        True: the last convolution gives a correction that is added to the input. False, as in the paper: it gives the
        image, through a sigmoid.
    full_skip : bool
        Add the head's features again at full resolution. Not in the paper; no parameters.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in IRUNet().parameters())
    123379
    """

    def __init__(self, filters: int = 16, *, residual: bool = False, full_skip: bool = False) -> None:
        super().__init__()
        if filters < 1:
            raise ValueError(f"filters must be at least 1, not {filters}")
        self.filters = filters
        self.residual = residual
        self.full_skip = full_skip
        self.head = nn.Conv2d(3, filters, 3, padding=1)
        for stage in (1, 2, 3, 4):
            self.add_module(f"red{stage}", _Reduction(filters))
            self.add_module(f"enc{stage}", _Inception(filters))
        for stage in (3, 2, 1, 0):
            self.add_module(f"up{stage}", nn.ConvTranspose2d(filters, filters, 2, stride=2))
            self.add_module(f"dec{stage}", _Inception(filters))
        self.tail = nn.Conv2d(filters, 3, 1)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the weights by He's rule. The tail of a residual network is zero: it starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Without this factor, sums of a branch and its input would double the variance in each of sixteen blocks.
        for name, module in self.named_modules():
            if name.endswith(".r") and isinstance(module, nn.Conv2d):
                module.weight.data.mul_(0.3)
        if self.residual:
            nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Denoise a batch.

        Parameters
        ----------
        x : Tensor
            (batch, 3, height, width) in [0, 1], RGB; height and width are multiples of 16.

        Returns
        -------
        Tensor
            Same shape, in [0, 1]. In training, the output of a residual network is not clamped, because a clamped pixel
            has no gradient.

        Raises
        ------
        ValueError
            For sides that are not multiples of 16.
        """
        last = self.last(x)
        if not self.residual:
            return torch.sigmoid(last)
        output = x + last
        return output if self.training else output.clamp(0.0, 1.0)

    def last(self, x: Tensor) -> Tensor:
        """Return the last convolution's output: the input of the sigmoid, or the correction of a residual network.

        A residual network can thus run in half precision, and its correction be added to the exact input.

        Raises
        ------
        ValueError
            For sides that are not multiples of 16.
        """
        if x.shape[-1] % STRIDE or x.shape[-2] % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}, not (height, width) {tuple(x.shape[-2:])}")
        at = self.get_submodule
        head = functional.relu(self.head(x))
        feature = head
        encoded: dict[int, Tensor] = {}
        for stage in (1, 2, 3, 4):
            feature = at(f"enc{stage}")(at(f"red{stage}")(feature))
            encoded[stage] = feature
        for stage in (3, 2, 1, 0):
            feature = functional.relu(at(f"up{stage}")(feature))
            if stage == 0 and self.full_skip:
                feature = feature + head
            feature = at(f"dec{stage}")(feature)
            if stage in {1, 2}:
                feature = feature + encoded[stage]
        last: Tensor = self.tail(feature)
        return last
