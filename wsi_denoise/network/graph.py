"""IRUNet as an OpenVINO graph, built from the weights without torch.

A conversion of the torch module gives the same results, but every worker process would have to import torch and its
exporter. That takes about ten seconds and half a gigabyte. A test compares the two.
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
    """Return the graph from 8-bit windows to the correction in grey levels, or to the image without `residual`.

    Parameters
    ----------
    weights : mapping of str to ndarray
        With the names of :class:`wsi_denoise.network.irunet.IRUNet`.
    shape : tuple of int
        (n, height, width, 3) of the input, uint8, and of the output, float32; -1 for an unknown size.
    residual, full_skip : bool
        As for IRUNet.
    """
    graph = _Graph(_in_grey_levels(weights, residual=residual))
    windows = ops.parameter(list(shape), np.uint8, name="windows")
    x = ops.transpose(ops.convert(windows, "f32"), np.array([0, 3, 1, 2]))
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
        last = ops.multiply(ops.sigmoid(last), np.float32(255))
    return openvino.Model([ops.transpose(last, np.array([0, 2, 3, 1]))], [windows], "irunet")


def _in_grey_levels(weights: Weights, *, residual: bool) -> Weights:
    """Return weights for input and output in grey levels instead of fractions of 255.

    This is faster, and more exact: bfloat16 represents every integer up to 256, but rounds most fractions of 255.
    """
    scaled = {**weights, "head.weight": np.asarray(weights["head.weight"], np.float32) / np.float32(255)}
    if residual:
        scaled |= {
            name: np.asarray(weights[name], np.float32) * np.float32(255) for name in ("tail.weight", "tail.bias")
        }
    return scaled


class _Graph:
    """The parts of the network, as in :mod:`wsi_denoise.network.irunet`.

    The sums are in another order, which is a sixth faster (docs/evidence/performance.md). Convolutions of the same
    input are one convolution. The 1x1 convolution of the concatenated branches is a sum of 1x1 convolutions, without a
    copy for the concatenation.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def _of(self, *names: str) -> NDArray[np.float32]:
        """Return the concatenation of weights or biases."""
        return np.concatenate([np.asarray(self._weights[name], np.float32) for name in names])

    def convolution(self, name: str, x: Any, pad: int) -> Any:
        return _convolution(x, self._of(f"{name}.weight"), self._of(f"{name}.bias"), pad)

    def transposed(self, name: str, x: Any) -> Any:
        kernel = self._of(f"{name}.weight")
        node = ops.convolution_backprop_data(x, kernel, [2, 2], pads_begin=[0, 0], pads_end=[0, 0])
        return _biased(node, self._of(f"{name}.bias"))

    def inception(self, name: str, x: Any) -> Any:
        near = self._of(f"{name}.a.weight", f"{name}.b.weight"), self._of(f"{name}.a.bias", f"{name}.b.bias")
        far = self._of(f"{name}.c.weight"), self._of(f"{name}.c.bias")
        joint, filters = self._of(f"{name}.r.weight"), self._of(f"{name}.c.weight").shape[0]
        wide = ops.relu(_convolution(x, *near, 1))
        dilated = ops.relu(_convolution(x, *far, 2, dilation=2))
        first = _convolution(wide, joint[:, :-filters], self._of(f"{name}.r.bias"), 0)
        return ops.add(ops.add(first, x), _convolution(dilated, joint[:, -filters:], None, 0))

    def reduction(self, name: str, x: Any) -> Any:
        kernel, bias = self._of(f"{name}.a.weight", f"{name}.b.weight"), self._of(f"{name}.a.bias", f"{name}.b.bias")
        shortcut = self._of(f"{name}.s.weight")
        joint, filters = self._of(f"{name}.r.weight"), shortcut.shape[1]
        wide = ops.relu(_convolution(x, kernel, bias, 0, stride=2, after=1))
        joint_bias = self._of(f"{name}.r.bias") + self._of(f"{name}.s.bias")
        first = _convolution(wide, joint[:, :-filters], joint_bias, 0)
        # The 2 x 2 mean and its 1x1 are a 2x2 convolution of stride 2, and so is the shortcut: the kernels are added.
        pooled = shortcut + joint[:, -filters:] / np.float32(4)
        return ops.add(first, _convolution(x, pooled, None, 0, stride=2))


def _convolution(
    x: Any,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    pad: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    after: int | None = None,
) -> Any:
    """Return a convolution with `pad` pixels of padding before and `after` pixels after (`pad` by default)."""
    begin, end = [pad, pad], [pad if after is None else after] * 2
    kernel = np.ascontiguousarray(kernel)
    return _biased(ops.convolution(x, kernel, [stride] * 2, begin, end, [dilation] * 2), bias)


def _biased(node: Any, bias: NDArray[np.float32] | None) -> Any:
    return node if bias is None else ops.add(node, bias.reshape(1, -1, 1, 1))
