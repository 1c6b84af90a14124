"""Device, backend, precision and windows of a slide's inference. This module has no expensive imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16"]

SMALLEST = {"cpu": 2, "cuda": 8}
"""Side of the smallest windows in patches: smaller ones do not use a GPU fully."""

FITTED_PIXELS = 500_000
"""Maximum pixels of a window of any shape, with its halo; it limits the memory (docs/evidence/stitching.md)."""


@dataclass(frozen=True)
class Plan:
    """The configuration of the inference; equal plans give equal pixels.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``.
    backend : str
        ``torch`` or ``openvino``.
    precision : str
        ``fp32``, ``bf16`` or ``fp16``.
    window : int
        Side of the largest windows in patches, without halo.
    batch : int
        Windows per batch.
    """

    device: str
    backend: Backend
    precision: Precision
    window: int
    batch: int

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of windows in patches, largest first: a block that is partly glass is split into smaller ones."""
        sides = [self.window]
        while sides[-1] % 2 == 0 and sides[-1] // 2 >= SMALLEST[self.device]:
            sides.append(sides[-1] // 2)
        return tuple(sides)

    @property
    def fitted(self) -> int:
        """Maximum pixels of a window of any shape for :func:`wsi_denoise.slide.windows.cover`; 0 on a GPU."""
        return FITTED_PIXELS if self.device == "cpu" else 0

    @property
    def numerics(self) -> str:
        """Text that must be equal for all blocks of a slide."""
        return f"{self.device}-{self.backend}-{self.precision}-w{self.window}"

    def __str__(self) -> str:
        numerics = f"{self.device}, {self.backend}, {self.precision}"
        return f"{numerics}, windows of {self.window} patches at most, {self.batch} a batch"
