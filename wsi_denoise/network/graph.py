"""IRUNet as an OpenVINO graph, built from the weights without torch.

Converting the torch module gives the same graph, but costs every worker process the import of torch and of its
exporter: some ten seconds and half a gigabyte before the first pixel. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

Weights = Mapping[str, NDArray[np.float32]]


def build(weights: Weights, shape: tuple[int, ...], *, residual: bool, full_skip: bool) -> Any:
    """Return the graph from 8-bit windows to the correction, or with a direct network the image, in grey levels.

    Parameters
    ----------
    weights : mapping of str to ndarray
        As :class:`wsi_denoise.network.irunet.IRUNet` names them.
    shape : tuple of int
        (n, height, width, 3) of the input, uint8, and of the output, float32.
    residual, full_skip : bool
        As of IRUNet.
    """
    graph = _Graph(weights)
    windows = ops.parameter(list(shape), np.uint8, name="windows")
    # float32 / 255 as torch computes it: multiplying by 1 / 255 differs in the last bit.
    scaled = ops.divide(ops.convert(windows, "f32"), np.float32(255))
    x = ops.transpose(scaled, np.array([0, 3, 1, 2]))
    head = ops.relu(graph.convolution("head", x, 1))
    feature = head
    encoded = {}
    for stage in (1, 2, 3, 4):
        feature = graph.inception(f"enc{stage}", graph.reduction(f"red{stage}", feature))
        encoded[stage] = feature
    for stage in (3, 2, 1, 0):
        feature = ops.relu(graph.transposed(f"up{stage}", feature))
        if stage == 0 and full_skip:
            feature = ops.add(feature, head)
        feature = graph.inception(f"dec{stage}", feature)
        if stage in {1, 2}:
            feature = ops.add(feature, encoded[stage])
    last = graph.convolution("tail", feature, 0)
    if not residual:
        last = ops.sigmoid(last)
    levels = ops.multiply(last, np.float32(255))
    return openvino.Model([ops.transpose(levels, np.array([0, 2, 3, 1]))], [windows], "irunet")


class _Graph:
    """The network's parts; see :mod:`wsi_denoise.network.irunet` for what they are."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def _biased(self, name: str, node: Any) -> Any:
        bias = self._weights.get(f"{name}.bias")
        return node if bias is None else ops.add(node, np.asarray(bias, np.float32).reshape(1, -1, 1, 1))

    def convolution(
        self, name: str, x: Any, pad: int, *, stride: int = 1, dilation: int = 1, after: int | None = None
    ) -> Any:
        begin, end = [pad, pad], [pad if after is None else after] * 2
        kernel = np.asarray(self._weights[f"{name}.weight"], np.float32)
        return self._biased(name, ops.convolution(x, kernel, [stride] * 2, begin, end, [dilation] * 2))

    def transposed(self, name: str, x: Any) -> Any:
        kernel = np.asarray(self._weights[f"{name}.weight"], np.float32)
        node = ops.convolution_backprop_data(x, kernel, [2, 2], pads_begin=[0, 0], pads_end=[0, 0])
        return self._biased(name, node)

    def inception(self, name: str, x: Any) -> Any:
        joined = ops.concat(
            [
                self.convolution(f"{name}.a", x, 1),
                self.convolution(f"{name}.b", x, 1),
                self.convolution(f"{name}.c", x, 2, dilation=2),
            ],
            1,
        )
        return ops.add(self.convolution(f"{name}.r", ops.relu(joined), 0), x)

    def reduction(self, name: str, x: Any) -> Any:
        pooled = ops.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], exclude_pad=True)
        wide = [ops.relu(self.convolution(f"{name}.{part}", x, 0, stride=2, after=1)) for part in "ab"]
        joined = ops.concat([*wide, pooled], 1)
        return ops.add(self.convolution(f"{name}.r", joined, 0), self.convolution(f"{name}.s", x, 0, stride=2))
