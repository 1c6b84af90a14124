"""Inference with PyTorch on GPUs and CPUs, in channels-last memory format."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_denoise.errors import DeviceOutOfMemory
from wsi_denoise.network.irunet import IRUNet
from wsi_denoise.network.plan import Plan


class _Correction(nn.Module):
    """The network with 8-bit input and an output in grey levels: the correction, or the image."""

    def __init__(self, network: IRUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        """Return float of the same shape for uint8 (n, height, width, 3)."""
        x = windows.permute(0, 3, 1, 2).float() / 255.0
        last = self.network.last(x)
        return 255.0 * (last if self.network.residual else torch.sigmoid(last)).permute(0, 2, 3, 1)


class TorchBackend:
    """Inference by a plan.

    Parameters
    ----------
    number : int
        Number of this worker. It selects one of several GPUs.
    """

    def __init__(self, network: IRUNet, plan: Plan, number: int = 0) -> None:
        self._plan, self._residual = plan, network.residual
        self._kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[plan.precision]
        self._device = torch.device(place(plan.device, number, torch.cuda.device_count()))
        self._local = threading.local()
        self._model = _Correction(network.eval()).to(self._device)
        self._model = self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the threads' streams do not wait for the stream of this copy

    def denoise(self, windows: NDArray[np.uint8], *, fitted: bool = False) -> NDArray[np.uint8]:  # noqa: ARG002 - all are alike
        """Denoise (n, height, width, 3) uint8; see :meth:`wsi_denoise.network.denoiser.Denoiser.denoise`.

        Raises
        ------
        DeviceOutOfMemory
        """
        if self._plan.device == "cpu" and torch.get_num_threads() != 1:
            torch.set_num_threads(1)  # each caller is one thread of the computation
        half = torch.autocast(self._plan.device, self._kind, enabled=self._kind is not None)
        try:
            with torch.inference_mode(), half:
                return self._run(windows)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # After the except clause, whose exception keeps the tensors of the failed frames alive.
        if self._plan.device == "cuda":
            torch.cuda.empty_cache()
        raise DeviceOutOfMemory(f"{len(windows)} windows of {windows.shape[1]} px")

    def _run(self, windows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # With pinned memory and one stream per thread, copies overlap with the computation of other threads.
        on_gpu = self._device.type == "cuda"
        given = torch.empty(windows.shape, dtype=torch.uint8, pin_memory=on_gpu)
        given.numpy()[...] = windows
        with self._stream() if on_gpu else nullcontext():
            pixels = given.to(self._device, non_blocking=True)
            change = self._model(pixels).float()
            after = (pixels.float() + change if self._residual else change).round_().clamp_(0, 255)
            result = torch.empty(windows.shape, dtype=torch.uint8, pin_memory=on_gpu)
            result.copy_(after.to(torch.uint8), non_blocking=True)
            if on_gpu:
                torch.cuda.current_stream(self._device).synchronize()
        pixels_of_result: NDArray[np.uint8] = result.numpy()
        return pixels_of_result

    def _stream(self) -> AbstractContextManager[None]:
        """Return this thread's CUDA stream as a context manager."""
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        entered: AbstractContextManager[None] = torch.cuda.stream(self._local.stream)
        return entered


def place(kind: str, number: int, count: int) -> str:
    """Return the device of a worker by its number: one of `count` GPUs in turn."""
    return f"cuda:{number % max(1, count)}" if kind == "cuda" else kind


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU there is no exception class for this: the allocator and oneDNN have their own messages.
    words = ("not enough memory", "can't allocate memory", "could not create a memory", "out of memory")
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or any(part in said for part in words)


def has_cuda() -> bool:
    """Return whether torch finds a CUDA device."""
    return torch.cuda.is_available()


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware; emulation is slower than fp32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - torch has no public function for it


def arrays_of(network: IRUNet) -> dict[str, NDArray[np.float32]]:
    """Return a network's weights as arrays by the names of its parameters."""
    return {name: value.detach().float().cpu().numpy() for name, value in network.state_dict().items()}


def device_name() -> str:
    """Return the name of the CUDA device."""
    return str(torch.cuda.get_device_name())
