"""How the network is run: chosen once per slide, and sent along with the work. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16"]


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
        Side of a window in patches, without halo.
    batch : int
        Windows per batch.
    """

    device: str
    backend: Backend
    precision: Precision
    window: int
    batch: int

    @property
    def numerics(self) -> str:
        """What must not be mixed within a slide."""
        return f"{self.device}-{self.backend}-{self.precision}-w{self.window}"

    def __str__(self) -> str:
        return (
            f"{self.device}, {self.backend}, {self.precision}, windows of {self.window} patches, {self.batch} a batch"
        )
