"""Validation during a run: PSNR on the validation patches, always with the same noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.data import sources
from training.noise import codecs, corruption


def validation_check(
    shared: Path, count: int = 48, *, compressed: bool = False
) -> Callable[[nn.Module], dict[str, float]]:
    """Return a function that returns PSNR in dB on the first patches of ``pcam-kaggle/val``, with constant noise.

    Parameters
    ----------
    compressed : bool
        Also measure noise of sigma 25 followed by JPEG of quality 70.
    """
    files = sources.images_in(shared / "data" / "patches" / "pcam-kaggle" / "val")[:count]
    clean = np.stack([sources.load(file) for file in files])

    def check(network: nn.Module) -> dict[str, float]:
        found = {}
        for sigma, quality in ((0, 0), (10, 0), (25, 0), (50, 0), *([(25, 70)] if compressed else [])):
            rng = np.random.default_rng([7, sigma])
            noisy = np.stack([corruption.corrupt(image, sigma, rng) for image in clean])
            if quality:
                noisy = np.stack([codecs.jpeg(image, quality) for image in noisy])
            x = torch.from_numpy(noisy).permute(0, 3, 1, 2).float() / 255.0
            with torch.inference_mode():
                y = torch.cat([network(part) for part in torch.split(x, 16)])
            restored = (y * 255.0).round().permute(0, 2, 3, 1).numpy()
            square = ((restored - clean) ** 2).mean(axis=(1, 2, 3))
            name = f"psnr_{sigma}_jpeg_{quality}" if quality else f"psnr_{sigma}"
            found[name] = round(float(np.mean(10.0 * np.log10(255.0**2 / np.maximum(square, 1e-3)))), 3)
        return found

    return check
