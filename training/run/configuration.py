"""The configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from training.data.bank import FLAT_SHARE
from training.noise import corruption
from training.run import comparators

CHOICES = {
    "protocol": tuple(corruption.CORRUPT),
    "optimizer": ("soap", "adamw"),
    "schedule": ("cosine", "constant"),
    "architecture": ("irunet", *comparators.NETWORKS),
}
"""Allowed values of the fields of a configuration that are names."""


@dataclass(frozen=True)
class Configuration:
    """All values that determine a run's result, besides its images and the number of threads.

    Parameters
    ----------
    filters, residual, full_skip
        As for :class:`wsi_denoise.network.irunet.IRUNet`.
    architecture : str
        ``irunet``, or one of :data:`training.run.comparators.NETWORKS`, which ignore the three values above.
    protocol : str
        ``fresh``, ``scanner``, ``camera`` or ``fixed-map``.
    steps : int
        Steps of the schedule.
    minutes : float or None
        Budget of wall-clock time. The progress of the schedule is the larger of the shares of steps and of time, so
        that the learning rate decreases in time on a machine of any speed.
    pixels : int
        Pixels per batch, in units of 1024. Crops have 64, 96 or 128 px; as many as fit are used.
    optimizer : str
        ``soap`` (:mod:`training.run.soap`) or ``adamw``.
    every : int
        Steps of SOAP between two updates of the eigenvectors; on a GPU an update takes as long as several steps.
    rate : float
        Highest learning rate.
    schedule : str
        Learning rate after the warm-up: ``cosine`` decreases to a thousandth. ``constant`` does not depend on the
        number of steps, so that a run can end at any step and another one can start from it.
    polish : float
        Share of the schedule, at its end, in which the loss is log mean square error per image (PSNR) instead of the
        mean absolute error.
    decay : float
        Decay of the averaged weights.
    device : str
        ``cpu``, ``cuda`` or ``auto``.
    flat : float
        Share of crops without structure; see :class:`training.data.bank.Bank`.
    texture : float
        Share of synthetic textures among the other crops; see :class:`training.data.bank.Bank`.
    initial : str
        Name of a preset, or a run's checkpoint without its suffix, whose averaged weights are the start; empty for
        random ones. The number of filters must be the same.
    photographs : str
        Folder with the photographs of :mod:`training.data.photographs`, an additional source; empty for none.
    bf16 : bool
        Autocast to bfloat16 (on a CPU with avx512_bf16, measured: 2.5 times as fast with channels_last).
    """

    filters: int = 16
    residual: bool = True
    full_skip: bool = True
    architecture: str = "irunet"
    protocol: corruption.Protocol = "fresh"
    steps: int = 60_000
    minutes: float | None = None
    pixels: int = 64
    optimizer: str = "soap"
    every: int = 10
    rate: float = 3e-3
    schedule: str = "cosine"
    polish: float = 0.35
    decay: float = 0.999
    seed: int = 1
    device: str = "auto"
    bf16: bool = True
    flat: float = FLAT_SHARE
    texture: float = 0.0
    initial: str = ""
    photographs: str = ""
