"""Running the network on pixels: uint8 RGB in, uint8 RGB out, in batches of windows of fixed shapes.

Device, backend and precision are chosen once (:func:`choose`) and travel with the work as a :class:`Plan`, so that all
blocks of a slide have the same numerics. In half precision the network computes the correction only, and the correction
is added to the exact 8-bit input: bfloat16 holds 8 bits, so that a whole image in it would be rounded to 1 grey level.
"""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_denoise.errors import DeviceOutOfMemory, SettingsInvalid
from wsi_denoise.network import weights as presets
from wsi_denoise.network.irunet import IRUNet
from wsi_denoise.network.plan import Backend, Plan, Precision
from wsi_denoise.settings import ComputeSettings

Pixels = NDArray[np.uint8]

CPU_WINDOW, CUDA_WINDOW = 4, 16
"""Measured default window sides in patches (docs/performance.md): a CPU's cache likes small ones, a GPU large ones."""

CUDA_BATCH = 2
_SHAPES = 6


def choose(compute: ComputeSettings) -> Plan:
    """Choose from the settings and from what this machine has.

    Raises
    ------
    SettingsInvalid
        When the settings ask for what is not there.
    """
    has_cuda = torch.cuda.is_available()
    if compute.device == "cuda" and not has_cuda:
        raise SettingsInvalid("compute.device is cuda, and there is no CUDA device here")
    device = "cuda" if has_cuda and compute.device != "cpu" else "cpu"
    has_openvino = importlib.util.find_spec("openvino") is not None
    if compute.backend == "openvino" and (device == "cuda" or not has_openvino):
        raise SettingsInvalid(
            "compute.backend is openvino, which is for a CPU and must be installed (pip install .[cpu])"
        )
    openvino = device == "cpu" and has_openvino and compute.backend != "torch"
    backend: Backend = "openvino" if openvino else "torch"
    return Plan(
        device,
        backend,
        _precision(compute, device, backend),
        compute.window or (CUDA_WINDOW if device == "cuda" else CPU_WINDOW),
        compute.batch or (CUDA_BATCH if device == "cuda" else 1),
    )


def _precision(compute: ComputeSettings, device: str, backend: Backend) -> Precision:
    if compute.precision != "auto":
        if device == "cpu" and compute.precision == "fp16":
            raise SettingsInvalid("compute.precision fp16 is for CUDA; on a CPU it is fp32 or bf16")
        return compute.precision
    if device == "cuda":
        return "fp16"
    return "bf16" if cpu_has_bf16(backend) else "fp32"


@lru_cache
def cpu_has_bf16(backend: Backend) -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; emulated it is slower than fp32."""
    if backend == "openvino":
        import openvino  # noqa: PLC0415 - optional

        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - torch has no public name for it


def describe_device(compute: ComputeSettings) -> str:
    """Return one line about what would be used here."""
    plan = choose(compute)
    name = torch.cuda.get_device_name() if plan.device == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{plan} ({name})"


class _Correction(nn.Module):
    """The network between 8-bit windows and what is added to them, or stands for them, in grey levels."""

    def __init__(self, network: IRUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        """Take uint8 (n, height, width, 3), give float of the same shape."""
        x = windows.permute(0, 3, 1, 2).float() / 255.0
        last = self.network.last(x)
        return 255.0 * (last if self.network.residual else torch.sigmoid(last)).permute(0, 2, 3, 1)


class Denoiser:
    """A preset's network on a device.

    Parameters
    ----------
    preset : str or IRUNet
        Name of a preset, or a network to be used as it is (in training and tests).
    plan : Plan
    threads : int
        Threads of this process that the network may use at a time.
    """

    def __init__(self, preset: str | IRUNet, plan: Plan, *, threads: int = 1) -> None:
        network = presets.load(preset) if isinstance(preset, str) else preset.eval()
        self.plan = plan
        self.residual = network.residual
        self._threads = threads
        self._local = threading.local()
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._model = _Correction(network).eval()
        if plan.backend == "torch":
            kind = torch.float16 if plan.precision == "fp16" else torch.float32
            self._model = self._model.to(plan.device, kind)
            self._model = self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def denoise(self, windows: Pixels) -> Pixels:
        """Denoise a batch.

        Parameters
        ----------
        windows : ndarray
            (n, height, width, 3) uint8 RGB; height and width are multiples of 16, and few different ones are used.

        Returns
        -------
        ndarray
            Same shape, uint8.

        Raises
        ------
        DeviceOutOfMemory
        """
        if self.plan.backend == "openvino":
            return self._openvino(windows)
        try:
            return self._torch(windows)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceOutOfMemory(f"{len(windows)} windows of {windows.shape[1]} px") from error

    def _torch(self, windows: Pixels) -> Pixels:
        kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.plan.precision]
        with (
            torch.inference_mode(),
            self._threads_of_torch(),
            torch.autocast(self.plan.device, kind, enabled=kind is not None),
        ):
            # A copy, because torch warns about arrays that it must not write to.
            pixels = torch.from_numpy(np.array(windows)).to(self.plan.device)
            change = self._model(pixels).float()
            after = pixels.float() + change if self.residual else change
            result: Pixels = after.round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
            return result

    @contextmanager
    def _threads_of_torch(self) -> Iterator[None]:
        if self.plan.device == "cpu" and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        yield

    def _openvino(self, windows: Pixels) -> Pixels:
        import cv2  # noqa: PLC0415 - only here

        request = self._request(windows.shape)
        change = next(
            iter(request.infer([np.ascontiguousarray(windows)], share_inputs=True, share_outputs=True).values())
        )
        if not self.residual:
            direct: Pixels = np.clip(np.rint(change), 0, 255).astype(np.uint8)
            return direct
        # One pass instead of four: adds, rounds and saturates.
        flat = windows.reshape(len(windows), -1)
        total = cv2.add(flat, change.reshape(flat.shape), dtype=cv2.CV_8U)
        result: Pixels = np.asarray(total, np.uint8).reshape(windows.shape)
        return result

    def _request(self, shape: tuple[int, ...]) -> Any:
        """Return this thread's request for a shape; a compiled network serves all threads, a request only one."""
        requests: dict[tuple[int, ...], Any] = self._local.__dict__.setdefault("requests", {})
        if shape not in requests:
            if len(requests) >= _SHAPES:
                requests.clear()
            requests[shape] = self._compile(shape).create_infer_request()
        return requests[shape]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        import openvino  # noqa: PLC0415 - optional

        with self._lock:
            if shape not in self._compiled:
                if len(self._compiled) >= _SHAPES:
                    self._compiled.clear()
                # torch warns about its own deprecations in what openvino calls of it; nothing here can mend them.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    exported = torch.export.export(self._model, (torch.zeros(shape, dtype=torch.uint8),))
                    model = openvino.convert_model(exported)
                settings = {
                    "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.plan.precision],
                    "INFERENCE_NUM_THREADS": self._threads,
                    "NUM_STREAMS": self._threads,
                    # Several worker processes would all be pinned to the first cores.
                    "ENABLE_CPU_PINNING": False,
                }
                self._compiled[shape] = openvino.Core().compile_model(model, "CPU", settings)
            compiled: Any = self._compiled[shape]
            return compiled


@lru_cache(maxsize=2)
def cached(preset: str, plan: Plan, threads: int) -> Denoiser:
    """Return this process's denoiser; loading and compiling take seconds."""
    return Denoiser(preset, plan, threads=threads)
