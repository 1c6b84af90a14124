"""Inference on batches of windows: uint8 RGB in, uint8 RGB out.

Device, backend and precision are chosen once (:func:`choose`) and passed to the workers as a
:class:`~wsi_denoise.network.plan.Plan`, so that all blocks of a slide have the same numerics. In half precision the
network computes only the correction, which is added to the exact 8-bit input. A whole image in bfloat16, which has 8
bits, would be rounded to 1 grey level.

torch is imported only if it is used, because OpenVINO does not need it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_denoise.errors import DeviceOutOfMemory, NoSuchPreset, SettingsInvalid, WeightsDamaged, WorkerDiffers
from wsi_denoise.network import processor
from wsi_denoise.network import weights as presets
from wsi_denoise.network.plan import Backend, Plan, Precision
from wsi_denoise.settings import ComputeSettings
from wsi_denoise.system import memory

if TYPE_CHECKING:
    from wsi_denoise.network.irunet import IRUNet

_log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

LARGE_WINDOW, SMALL_WINDOW = 16, 8
"""Default window sides in patches (docs/evidence/stitching.md): large windows need less halo, small ones less memory.
Large windows, of a whole block, are used on a GPU, and with OpenVINO if the memory suffices."""

MEMORY, MEMORY_OF_16_FILTERS = 2 * 2**30, 2**30
"""Bytes per thread for large windows: a constant part, and a part that grows with the filters. With 16 filters a thread
takes 0.85 GB for windows of 16 patches and 0.3 GB for 8; with 44 filters 2.9 and 0.85 GB. Tissue detection takes 1 GB
more in one of the workers."""

CUDA_BATCH = 2


def choose(compute: ComputeSettings, filters: int = 16, room: float | None = None) -> Plan:
    """Choose a plan from the settings and the hardware of this machine.

    Parameters
    ----------
    filters : int
        Filters of the network: more filters need more memory.
    room : float, optional
        Bytes of memory for each thread that calls the network; by default the memory limit divided by the cores.

    Raises
    ------
    SettingsInvalid
        If the settings require hardware or software that this machine lacks.
    """
    device = _device(compute)
    backend = _backend_of(compute, device)
    room = room or memory.limit() / (os.cpu_count() or 1)
    return Plan(
        device,
        backend,
        _precision(compute, device, backend),
        compute.window or default_window(device, backend, room, filters),
        compute.batch or (CUDA_BATCH if device == "cuda" else 1),
    )


def _device(compute: ComputeSettings) -> str:
    if compute.device != "cpu" and _has_cuda():
        return "cuda"
    if compute.device == "cuda":
        raise SettingsInvalid("compute.device is cuda, and there is no CUDA device here")
    return "cpu"


def _backend_of(compute: ComputeSettings, device: str) -> Backend:
    usable = device == "cpu" and importlib.util.find_spec("openvino") is not None
    if compute.backend == "openvino" and not usable:
        raise SettingsInvalid(
            "compute.backend is openvino, which is for a CPU and must be installed (pip install .[cpu])"
        )
    return "openvino" if usable and compute.backend != "torch" else "torch"


def default_window(device: str, backend: Backend, room: float, filters: int = 16) -> int:
    """Return the default window side in patches for `room` bytes of memory per thread."""
    needed = MEMORY + MEMORY_OF_16_FILTERS * filters / 16
    large = device == "cuda" or (backend == "openvino" and room >= needed)
    return LARGE_WINDOW if large else SMALL_WINDOW


@lru_cache
def _has_cuda() -> bool:
    try:
        # torch takes seconds to import. Without the driver's library the answer is known.
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    from wsi_denoise.network.backends import torch_backend  # noqa: PLC0415

    return torch_backend.has_cuda()


def _precision(compute: ComputeSettings, device: str, backend: Backend) -> Precision:
    if compute.precision != "auto":
        if device == "cpu" and compute.precision == "fp16":
            raise SettingsInvalid("compute.precision fp16 is for CUDA; on a CPU it is fp32 or bf16")
        return compute.precision
    if device == "cuda":
        return "fp16"
    cpu = processor.here()
    return "bf16" if cpu_has_bf16(backend) and processor.gains_from_bf16(cpu.vendor, cpu.flags) else "fp32"


@lru_cache
def cpu_has_bf16(backend: Backend) -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware; emulation is slower than fp32."""
    if backend == "openvino":
        from wsi_denoise.network.backends import openvino_backend  # noqa: PLC0415 - optional

        return openvino_backend.cpu_has_bf16()
    from wsi_denoise.network.backends import torch_backend  # noqa: PLC0415

    return torch_backend.cpu_has_bf16()


def describe_device(compute: ComputeSettings, preset: str, room: float | None = None) -> str:
    """Return one line about the plan for a preset on this machine; `room` is as in :func:`choose`."""
    try:
        filters = presets.card(preset).filters
    except (NoSuchPreset, WeightsDamaged):  # the job itself will report it
        filters = 16
    plan = choose(compute, filters, room)
    if plan.device != "cuda":
        return f"{plan} ({len(os.sched_getaffinity(0))} cores)"
    from wsi_denoise.network.backends import torch_backend  # noqa: PLC0415

    return f"{plan} ({torch_backend.device_name()})"


class _Backend(Protocol):
    def denoise(self, windows: Pixels, *, fitted: bool) -> Pixels: ...


class _Places:
    """Limit of the threads that use the device at the same time; lowered after the device ran out of memory."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[int]:
        """Wait for a place, hold it during the block, and yield the limit at the start."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self._most)
            self._taken += 1
            most = self._most
        try:
            yield most
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def halve(self, most: int) -> int:
        """Lower the limit to half of `most`, the limit when memory ran out, and return it."""
        with self._changed:
            self._most = min(self._most, max(1, most // 2))
            return self._most


class Denoiser:
    """A preset's network on a device.

    Parameters
    ----------
    preset : str or IRUNet
        Name of a preset, or a network (in training and tests).
    callers : int
        Number of threads of this process that call it at the same time.
    number : int
        Number of this worker. It selects one of several GPUs.

    Raises
    ------
    NoSuchPreset, WeightsDamaged
    """

    def __init__(self, preset: str | IRUNet, plan: Plan, *, callers: int = 1, number: int = 0) -> None:
        self.plan = plan
        self._backend = _backend(preset, plan, callers, number)
        self._most: int | None = None
        self._places = _Places(callers)

    def denoise(self, windows: Pixels, *, fitted: bool = False) -> Pixels:
        """Denoise a batch of windows.

        If the device runs out of memory, the batch size is halved, for later calls too. If memory does not suffice for
        a single window per thread, fewer threads use the device from then on.

        Parameters
        ----------
        windows : ndarray
            (n, height, width, 3) uint8 RGB; height and width are multiples of 16.
        fitted : bool
            The shape is rare, so the device is not prepared for it. Other shapes are few, and the device is prepared
            for each.

        Returns
        -------
        ndarray
            Same shape, uint8.

        Raises
        ------
        DeviceOutOfMemory
            If memory does not suffice for a single window while no other thread of this process uses the device.
        """
        while True:
            most = min(len(windows), self._most or len(windows))
            try:
                with self._places.taken() as places:
                    parts = [
                        self._backend.denoise(windows[at : at + most], fitted=fitted)
                        for at in range(0, len(windows), most)
                    ]
            except DeviceOutOfMemory as error:
                if most > 1:
                    self._most = -(-most // 2)
                    _log.warning("%s; batches of %d from now on", error.happened, self._most)
                elif places > 1:
                    _log.warning("%s; %d threads at a time from now on", error.happened, self._places.halve(places))
                else:
                    raise
            else:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _backend(preset: str | IRUNet, plan: Plan, callers: int, number: int) -> _Backend:
    if plan.backend == "openvino":
        from wsi_denoise.network.backends.openvino_backend import OpenVinoBackend  # noqa: PLC0415 - optional

        if isinstance(preset, str):
            card, arrays = presets.card(preset), presets.arrays(preset)
            residual, full_skip = card.residual, card.full_skip
        else:
            from wsi_denoise.network.backends.torch_backend import arrays_of  # noqa: PLC0415

            arrays, residual, full_skip = arrays_of(preset), preset.residual, preset.full_skip
        return OpenVinoBackend(arrays, plan, callers, residual=residual, full_skip=full_skip)
    from wsi_denoise.network.backends.torch_backend import TorchBackend  # noqa: PLC0415

    return TorchBackend(presets.load(preset) if isinstance(preset, str) else preset, plan, number)


_making = threading.Lock()


def cached(preset: str, plan: Plan, callers: int, number: int = 0, *, sha256: str) -> Denoiser:
    """Return this process's denoiser with the weights of this checksum; the first call loads and compiles it.

    The threads of a worker start their first blocks at the same time. One of them makes the denoiser, and the others
    wait, because loading OpenVINO's plugin twice doubles the work.

    Raises
    ------
    WorkerDiffers
        If the preset's weights do not have this checksum: the program was upgraded while it ran, or the host has
        another version.
    """
    with _making:
        return _cached(preset, plan, callers, number, sha256)


@lru_cache(maxsize=4)
def _cached(preset: str, plan: Plan, callers: int, number: int, sha256: str) -> Denoiser:
    made = Denoiser(preset, plan, callers=callers, number=number)
    # Loading compares the weights with the card. A check after that detects a replacement of either.
    found = presets.card(preset).sha256
    if found != sha256:
        raise WorkerDiffers(f"weights {found[:12]} of {preset}, planned with {sha256[:12]}")
    return made
