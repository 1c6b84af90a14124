"""Methods that the network is compared with on the same pixels.

Classical methods from scikit-image get the sigma as an input. Their one free parameter is chosen on ``pcam-kaggle/val``
(:func:`tuned`). The anchor networks were trained by other authors. They are read from the shared folder if it has them,
and are neither shipped nor trained here. Every method takes and returns (batch, height, width, 3) uint8.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from skimage import restoration
from torch import Tensor
from torch.nn import functional

from training.evaluate.measures import psnr
from wsi_denoise.network.irunet import IRUNet

Batch = npt.NDArray[np.uint8]
Method = Callable[[Batch, float], Batch]
"""Takes noisy images and the sigma in grey levels; a blind method ignores the sigma."""

GRIDS: dict[str, tuple[float, ...]] = {
    "non-local means": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "wavelet BayesShrink": (0.6, 0.8, 1.0, 1.2, 1.5),
    "total variation": (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3),
}
"""Values to try on the validation patches, as multiples of sigma: of h; of the given sigma; of the weight."""


def classical(name: str, factor: float) -> Method:
    """Return a method of `GRIDS` with a value of its free parameter, in units of sigma."""

    def one(image: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
        if name == "non-local means":
            found = restoration.denoise_nl_means(
                image, patch_size=5, patch_distance=6, h=factor * sigma, sigma=sigma, fast_mode=True, channel_axis=2
            )
        elif name == "wavelet BayesShrink":
            with warnings.catch_warnings():
                # The threshold estimate divides by zero on a flat patch. scikit-image handles this after the warning.
                warnings.simplefilter("ignore", RuntimeWarning)
                found = restoration.denoise_wavelet(
                    image, sigma=factor * sigma, method="BayesShrink", convert2ycbcr=True, channel_axis=2
                )
        elif name == "total variation":
            found = restoration.denoise_tv_chambolle(image, weight=factor * sigma, channel_axis=2)
        else:
            raise ValueError(f"no such method: {name}")
        return np.asarray(found)

    def method(noisy: Batch, sigma: float) -> Batch:
        if sigma <= 0:
            return noisy
        return _bytes(np.stack([one(image / 255.0, sigma / 255.0) for image in noisy]))

    return method


def tuned(name: str, clean: Batch, corrupt: Callable[[Batch, float], Batch], sigmas: Sequence[float]) -> Method:
    """Choose a classical method's free parameter for each sigma by the mean PSNR on validation patches.

    For another sigma than these, the parameter of the nearest one is used.
    """
    chosen: dict[float, float] = {}
    for sigma in (sigma for sigma in sigmas if sigma > 0):
        noisy = corrupt(clean, sigma)
        found = {factor: float(np.mean(psnr(classical(name, factor)(noisy, sigma), clean))) for factor in GRIDS[name]}
        chosen[sigma] = max(found, key=lambda factor: found[factor])

    def method(noisy: Batch, sigma: float) -> Batch:
        nearest = min(chosen, key=lambda known: abs(known - sigma))
        return classical(name, chosen[nearest])(noisy, sigma)

    return method


def bm3d_methods() -> dict[str, Method]:
    """Return BM3D of each channel separately, and CBM3D; both get the sigma as an input.

    The package (``bm3d``) is free for non-commercial use only. The extra ``compare`` installs it.

    Raises
    ------
    ModuleNotFoundError
        Without the package.
    """
    import bm3d  # noqa: PLC0415 - optional, and not free for every use

    def channels(image: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
        return np.stack([bm3d.bm3d(image[..., channel], sigma) for channel in range(3)], axis=-1)

    def colours(image: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
        return np.asarray(bm3d.bm3d_rgb(image, sigma))

    def method(one: Callable[[npt.NDArray[np.float64], float], npt.NDArray[np.float64]]) -> Method:
        def run(noisy: Batch, sigma: float) -> Batch:
            return noisy if sigma <= 0 else _bytes(np.stack([one(image / 255.0, sigma / 255.0) for image in noisy]))

        return run

    return {"BM3D per channel, given sigma": method(channels), "CBM3D, given sigma": method(colours)}


def network(module: torch.nn.Module, *, batch: int = 16) -> Method:
    """Return a blind method that runs a network on whole images, fp32."""
    module.eval()

    def method(noisy: Batch, sigma: float) -> Batch:  # noqa: ARG001 - blind
        # Large images in small batches, because each needs a gigabyte for a few megapixels.
        step = max(1, min(batch, batch * 192**2 // noisy[0, ..., 0].size))
        with torch.inference_mode():
            parts = [module(_tensor(noisy[at : at + step])) for at in range(0, len(noisy), step)]
        return _images(torch.cat(parts))

    return method


def anchors(reference: Path) -> dict[str, Method]:
    """Return the networks of other authors by name, if their weights are in the folder."""
    makers: dict[str, tuple[str, Callable[[list[Tensor]], Method]]] = {
        "dncnn_color_blind": ("DnCNN colour, blind", _dncnn),
        "ffdnet_color": ("FFDNet colour, given sigma", _ffdnet),
        "fdncnn_clip_color": ("FDnCNN-Clip colour, given sigma", _fdncnn),
    }
    found: dict[str, Method] = {}
    for file, (name, make) in makers.items():
        path = reference / "pretrained" / f"{file}.npz"
        if path.is_file():
            with np.load(path) as arrays:
                names = [f"{kind}{n}" for n in range(len(arrays.files) // 2) for kind in "wb"]
                found[name] = make([torch.from_numpy(arrays[each]) for each in names])
    authors = reference / "irunet_authors_weights.npz"
    if authors.is_file():
        with np.load(authors) as arrays:
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        net = IRUNet(16)
        net.load_state_dict(weights)
        found["authors' weights (fixed map)"] = network(net)
    return found


def _stack(x: Tensor, layers: list[Tensor]) -> Tensor:
    for index in range(0, len(layers), 2):
        x = functional.conv2d(x, layers[index], layers[index + 1], padding=1)
        if index < len(layers) - 2:
            x = functional.relu(x)
    return x


def _dncnn(layers: list[Tensor]) -> Method:
    return _each(lambda x, _sigma: x - _stack(x, layers))


def _fdncnn(layers: list[Tensor]) -> Method:
    return _each(lambda x, sigma: _stack(torch.cat([x, torch.full_like(x[:, :1], sigma / 255.0)], dim=1), layers))


def _ffdnet(layers: list[Tensor]) -> Method:
    def run(x: Tensor, sigma: float) -> Tensor:
        # FFDNet works on 2 x 2 blocks, so odd sides are padded by one pixel.
        height, width = x.shape[-2:]
        even = functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        small = functional.pixel_unshuffle(even, 2)
        given = torch.cat([small, torch.full_like(small[:, :1], sigma / 255.0)], dim=1)
        return functional.pixel_shuffle(_stack(given, layers), 2)[..., :height, :width]

    return _each(run)


def _each(run: Callable[[Tensor, float], Tensor]) -> Method:
    def method(noisy: Batch, sigma: float) -> Batch:
        with torch.inference_mode():
            parts = [run(_tensor(noisy[at : at + 4]), sigma) for at in range(0, len(noisy), 4)]
        return _images(torch.cat(parts))

    return method


def _tensor(images: Batch) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255.0


def _images(batch: Tensor) -> Batch:
    return _bytes(batch.permute(0, 2, 3, 1).numpy())


def _bytes(images: npt.NDArray[np.floating]) -> Batch:
    return np.asarray(np.rint(np.clip(images, 0.0, 1.0) * 255.0), dtype=np.uint8)
