"""How the network is run: chosen once per slide, and sent along with the work. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16"]

SMALLEST = {"cpu": 2, "cuda": 8}
"""Smallest windows that are chosen, in patches: a small one does not fill a GPU."""

FITTED_PIXELS = 500_000
"""Most pixels of a window of any shape, with its halo; it limits the memory (docs/evidence/stitching.md)."""


@dataclass(frozen=True)
class Plan:
    """How the network is run; equal plans give equal pixels.

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
        """Sides of windows in patches, largest first: a block that is partly glass is done in smaller ones."""
        sides = [self.window]
        while sides[-1] % 2 == 0 and sides[-1] // 2 >= SMALLEST[self.device]:
            sides.append(sides[-1] // 2)
        return tuple(sides)

    @property
    def fitted(self) -> int:
        """Most pixels of a window of any shape, for :func:`wsi_denoise.slide.windows.cover`; 0 where there are none."""
        return FITTED_PIXELS if self.device == "cpu" else 0

    @property
    def numerics(self) -> str:
        """What must not be mixed within a slide."""
        return f"{self.device}-{self.backend}-{self.precision}-w{self.window}"

    def __str__(self) -> str:
        numerics = f"{self.device}, {self.backend}, {self.precision}"
        return f"{numerics}, windows of {self.window} patches at most, {self.batch} a batch"
