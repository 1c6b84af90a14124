"""Presets: the weights in the package, and their model cards.

A preset consists of two files in the package's ``weights`` folder: ``NAME.safetensors`` and ``NAME.json``. The card
states the SHA-256 of the weights, which is checked at every load. Cards are read without torch, so that
``wsi-denoise models`` is fast. Pickles are never read.

Examples
--------
>>> "paper" in [card.name for card in presets()]
True
>>> card("paper").parameters
123379
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import re
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.errors import NoSuchPreset, WeightsDamaged

if TYPE_CHECKING:
    from torch import Tensor

    from wsi_denoise.network.irunet import IRUNet

ARCHITECTURE = "IRUNet"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class TrainedOn:
    """A source of training patches.

    Parameters
    ----------
    name, licence : str
    files : int
        Number of images.
    sha256 : str
        Checksum of their names and bytes, in order; empty for synthetic patches.
    """

    name: str
    licence: str
    files: int
    sha256: str = ""


@dataclass(frozen=True)
class Measured:
    """One row of a measured table.

    Parameters
    ----------
    source : str
        Name of the images, which are not in the training set.
    images, seeds : int
        Number of images, and number of noise draws for each.
    protocol : str
        Name of the noise: ``fresh``, or another of ``training/evaluate/conditions.py``.
    sigma : float
        Strength of the noise in grey levels.
    psnr, psnr_low, psnr_high : float
        Mean PSNR over RGB in dB, and its 95 % bootstrap interval over the images.
    ssim : float
        Mean SSIM.
    noisy_psnr, noisy_ssim : float
        The same for the noisy input.
    """

    source: str
    images: int
    seeds: int
    protocol: str
    sigma: float
    psnr: float
    psnr_low: float
    psnr_high: float
    ssim: float
    noisy_psnr: float
    noisy_ssim: float

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts, in the order of :data:`MEASURED_COLUMNS`."""
        interval = f"{self.psnr_low:.2f} to {self.psnr_high:.2f}"
        figures = (f"{self.sigma:g}", f"{self.noisy_psnr:.2f}", f"{self.psnr:.2f}", interval)
        return (self.source, self.protocol, *figures, f"{self.noisy_ssim:.3f}", f"{self.ssim:.3f}", f"{self.images:,}")


MEASURED_COLUMNS = (
    *("Images of", "Noise", "Sigma", "Noisy, dB", "Denoised, dB", "95 %"),
    *("Noisy, SSIM", "Denoised, SSIM", "Images"),
)


@dataclass(frozen=True)
class Nuclei:
    """Nuclei found on denoised images compared with the clean ones, for one kind of noise.

    Parameters
    ----------
    kind : str
        Name of the noise.
    images : int
        Number of images.
    clean, noisy, denoised : float
        Mean number of nuclei per image.
    f1_noisy, f1_denoised : float
        F1 against the nuclei of the clean image, before and after denoising.
    losing_noisy, losing : int
        Number of images with more than 5 % fewer nuclei than the clean one, before and after denoising.
    """

    kind: str
    images: int
    clean: float
    noisy: float
    denoised: float
    f1_noisy: float
    f1_denoised: float
    losing_noisy: int
    losing: int

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts, in the order of :data:`NUCLEI_COLUMNS`."""
        counts = (f"{self.clean:.0f}", f"{self.noisy:.0f}", f"{self.denoised:.0f}")
        quality = (f"{self.f1_noisy:.2f}", f"{self.f1_denoised:.2f}")
        return (
            self.kind,
            *counts,
            *quality,
            f"{self.losing_noisy} of {self.images}",
            f"{self.losing} of {self.images}",
        )


NUCLEI_COLUMNS = (
    *("Noise", "Nuclei", "Noisy", "Denoised", "Noisy, F1", "Denoised, F1"),
    *("Noisy, lose 5 %", "Denoised, lose 5 %"),
)


@dataclass(frozen=True)
class ModelCard:
    """The model card of a preset.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and hyphens.
    purpose : str
        Its use, in a sentence.
    filters, residual, full_skip
        As for :class:`wsi_denoise.network.irunet.IRUNet`.
    protocol : str
        Noise protocol of the training: ``fresh``, ``scanner``, ``camera`` or ``fixed-map``.
    samples_seen : int
        Number of crops in training.
    training : dict
        Details of the training in JSON types: steps, seed, loss, machine.
    sha256 : str
        Checksum of the ``.safetensors`` file.
    not_for_slides : bool
        True for a preset that only reproduces a published table.
    created : str
        Date, ISO 8601.
    nuclei : tuple of Nuclei
        Empty where it was not measured.
    """

    name: str
    purpose: str
    architecture: str
    filters: int
    residual: bool
    full_skip: bool
    parameters: int
    protocol: str
    trained_on: tuple[TrainedOn, ...]
    samples_seen: int
    training: dict[str, Any]
    measured: tuple[Measured, ...]
    sha256: str
    licence: str
    not_for_slides: bool
    created: str
    nuclei: tuple[Nuclei, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the card in JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelCard:
        """Return the card for a result of :meth:`to_json`.

        Raises
        ------
        WeightsDamaged
            If a field is missing or unknown.
        """
        try:
            nested = {
                "trained_on": tuple(TrainedOn(**source) for source in values["trained_on"]),
                "measured": tuple(Measured(**row) for row in values["measured"]),
                "nuclei": tuple(Nuclei(**row) for row in values.get("nuclei", ())),
            }
            return cls(**{**values, **nested})
        except (KeyError, TypeError) as error:
            raise WeightsDamaged(f"the model card cannot be read ({error})") from error


def folder() -> Traversable:
    """Return the folder of the presets, inside the package."""
    return importlib.resources.files("wsi_denoise") / "weights"


def presets(where: Traversable | None = None) -> list[ModelCard]:
    """Return the cards of all presets, sorted by name. Only JSON is read.

    Parameters
    ----------
    where : folder, optional
        The package's folder by default.
    """
    place = where or folder()
    if not place.is_dir():
        return []
    names = sorted(file.name.removesuffix(".json") for file in place.iterdir() if file.name.endswith(".json"))
    return [card(name, place) for name in names]


def card(preset: str, where: Traversable | None = None) -> ModelCard:
    """Return the card of a preset. Only JSON is read.

    Raises
    ------
    NoSuchPreset
        If no preset has this name.
    WeightsDamaged
        If the card cannot be read.
    """
    file = (where or folder()) / f"{preset}.json"
    # The name comes from a command line or a settings file, and must not refer to another folder.
    if not _NAME.fullmatch(preset) or not file.is_file():
        raise NoSuchPreset(preset)
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise WeightsDamaged(f"the model card of {preset} is not JSON ({error})") from error
    return ModelCard.from_json(values)


def load(preset: str, where: Traversable | None = None) -> IRUNet:
    """Return the network of a preset with its weights, on the CPU, in eval mode.

    Raises
    ------
    NoSuchPreset
        If no preset has this name.
    WeightsDamaged
        If the weights are missing, differ from the card's checksum, or do not fit the architecture.
    """
    import safetensors.torch  # noqa: PLC0415 - cards are read without torch

    from wsi_denoise.network.irunet import IRUNet  # noqa: PLC0415

    known, data = _checked(preset, where)
    network = IRUNet(known.filters, residual=known.residual, full_skip=known.full_skip)
    try:
        network.load_state_dict(safetensors.torch.load(data))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsDamaged(f"{preset}.safetensors does not fit {known.architecture} of {known.filters}") from error
    return network.eval()


def arrays(preset: str, where: Traversable | None = None) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a preset as arrays by the names of the network's parameters, without torch.

    Raises
    ------
    NoSuchPreset, WeightsDamaged
        As :func:`load`, except that the architecture is not checked.
    """
    import safetensors.numpy  # noqa: PLC0415

    _, data = _checked(preset, where)
    try:
        return dict(safetensors.numpy.load(data))
    except safetensors.SafetensorError as error:
        raise WeightsDamaged(f"{preset}.safetensors cannot be read ({error})") from error


def _checked(preset: str, where: Traversable | None) -> tuple[ModelCard, bytes]:
    """Return a preset's card, and the content of its weights file after a check of the checksum."""
    place = where or folder()
    known = card(preset, place)
    try:
        data = (place / f"{preset}.safetensors").read_bytes()
    except OSError as error:
        raise WeightsDamaged(f"{preset}.safetensors cannot be read ({error})") from error
    found = hashlib.sha256(data).hexdigest()
    if found != known.sha256:
        raise WeightsDamaged(f"{preset}.safetensors has {found[:12]}, its card says {known.sha256[:12]}")
    return known, data


def save(weights: dict[str, Tensor], known: ModelCard, where: Path) -> ModelCard:
    """Write a preset's two files, and return its card with checksum and number of parameters.

    Parameters
    ----------
    weights : dict of str to Tensor
        State of an IRUNet; written as float32.
    known : ModelCard
        Its ``sha256`` and ``parameters`` are replaced.
    where : Path
        Folder, made if it does not exist.

    Raises
    ------
    ValueError
        For a name that is not lower-case letters, digits and hyphens.
    """
    import safetensors.torch  # noqa: PLC0415

    if not _NAME.fullmatch(known.name):
        raise ValueError(f"not a preset's name: {known.name!r}")
    data = safetensors.torch.save({name: value.detach().cpu().float().contiguous() for name, value in weights.items()})
    complete = dataclasses.replace(
        known,
        sha256=hashlib.sha256(data).hexdigest(),
        parameters=sum(value.numel() for value in weights.values()),
    )
    where.mkdir(parents=True, exist_ok=True)
    # Weights first, so that a card never exists without its weights.
    for name, content in (
        (f"{known.name}.safetensors", data),
        (f"{known.name}.json", (json.dumps(complete.to_json(), indent=2) + "\n").encode()),
    ):
        temporary = where / f"{name}.part"
        temporary.write_bytes(content)
        temporary.replace(where / name)
    return complete
