"""Inference with OpenVINO on CPUs. The network is compiled per shape, and once for windows of any shape."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import openvino
from numpy.typing import NDArray

from wsi_denoise.errors import DeviceOutOfMemory
from wsi_denoise.network.graph import Weights, build
from wsi_denoise.network.plan import Plan

# Workaround for a deadlock at the first blocks of a job. The first call fills a table in a static variable of
# OpenVINO's binding. If two threads fill it at the same time, one holds the variable's guard and waits for the GIL, and
# the other holds the GIL and waits for the guard. Obsolete when
# tests/unit/network/backends/test_openvino_backend.py passes without this line.
openvino.Type.f32.to_dtype()

_SHAPES = 4
"""Maximum number of compiled shapes; a slide needs three: two window sides and the one for any shape."""

_ANY = (1, -1, -1, 3)
"""Shape for windows of any size: the same pixels, a twelfth slower, with buffers for the largest window."""

_REMEMBERED = 300
"""Number of cached layers, about 60 per recent window size. OpenVINO's default is 5000, with which a daemon grows by
3 MB per new size, up to half a gigabyte."""

_NO_MEMORY = ("bad_alloc", "Failed to allocate", "can't alloc")
"""Messages of the plugin, the C++ library and oneDNN for a lack of memory, which has no exception class in OpenVINO."""


class OpenVinoBackend:
    """Inference by a plan.

    Parameters
    ----------
    weights : mapping of str to ndarray
        With the names of IRUNet's parameters.
    callers : int
        Number of threads of this process that call it at the same time.
    residual, full_skip : bool
        As for IRUNet.
    """

    def __init__(self, weights: Weights, plan: Plan, callers: int, *, residual: bool, full_skip: bool) -> None:
        self._weights, self._residual, self._full_skip = weights, residual, full_skip
        self._settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[plan.precision],
            # One stream per caller, because a stream serves one caller at a time.
            "NUM_STREAMS": callers,
            "INFERENCE_NUM_THREADS": callers,
            # With pinning, all worker processes would use the first cores.
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": _REMEMBERED,
        }
        self._core = openvino.Core()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._compiled: dict[tuple[int, ...], Any] = {}

    def denoise(self, windows: NDArray[np.uint8], *, fitted: bool = False) -> NDArray[np.uint8]:
        """Denoise (n, height, width, 3) uint8; see :meth:`wsi_denoise.network.denoiser.Denoiser.denoise`.

        Raises
        ------
        DeviceOutOfMemory
        """
        try:
            outputs = self._request(_ANY if fitted else windows.shape).infer(
                [np.ascontiguousarray(windows)], share_inputs=True, share_outputs=True
            )
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
                raise
            raise DeviceOutOfMemory(f"{len(windows)} windows of {windows.shape[1]} px") from None
        change: NDArray[np.float32] = next(iter(outputs.values()))
        if not self._residual:
            direct: NDArray[np.uint8] = np.clip(np.rint(change), 0, 255).astype(np.uint8)
            return direct
        # One pass that adds, rounds and saturates.
        flat = windows.reshape(len(windows), -1)
        total = cv2.add(flat, change.reshape(flat.shape), dtype=cv2.CV_8U)
        result: NDArray[np.uint8] = np.asarray(total, np.uint8).reshape(windows.shape)
        return result

    def _request(self, shape: tuple[int, ...]) -> Any:
        """Return this thread's request for a shape. Threads share a compiled network, but not a request."""
        requests: dict[tuple[int, ...], Any] = self._local.__dict__.setdefault("requests", {})
        if shape not in requests:
            if len(requests) >= _SHAPES:
                requests.clear()
            requests[shape] = self._compile(shape).create_infer_request()
        return requests[shape]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        with self._lock:
            if shape not in self._compiled:
                if len(self._compiled) >= _SHAPES:
                    self._compiled.clear()
                graph = build(self._weights, shape, residual=self._residual, full_skip=self._full_skip)
                self._compiled[shape] = self._core.compile_model(graph, "CPU", self._settings)
            compiled: Any = self._compiled[shape]
            return compiled


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
