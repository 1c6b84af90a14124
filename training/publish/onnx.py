"""Write a preset as ONNX: ``python -m training.publish.onnx paper``, for devices that have neither torch nor OpenVINO.

The graph takes ``noisy``, (n, 3, height, width) float32 RGB in [0, 1] with height and width multiples of 16, and gives
``denoised``, the same in [0, 1]. It is built from the weights with ONNX's own operators, is checked against torch, and
its size and the time for one patch of 96 x 96 px are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training import pages
from wsi_denoise.network import processor, weights

Weights = Mapping[str, npt.NDArray[np.float32]]

OPSET = 17
TOLERANCE = 1e-4
"""Maximum difference from torch, for values in [0, 1]."""
SIDE = 96


class _Graph:
    """Nodes and weights of a growing graph; each method returns the name of its node's output."""

    def __init__(self, arrays: Weights) -> None:
        import onnx  # noqa: PLC0415 - comes with the extra `train`

        self._onnx = onnx
        self._arrays = arrays
        self.nodes: list[Any] = []
        self.constants: dict[str, npt.NDArray[np.float32]] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, name: str, values: npt.NDArray[np.float32]) -> str:
        self.constants[name] = np.asarray(values, np.float32)
        return name

    def _parameters(self, name: str) -> list[str]:
        kinds = ("weight", "bias") if f"{name}.bias" in self._arrays else ("weight",)
        return [self.constant(f"{name}.{kind}", self._arrays[f"{name}.{kind}"]) for kind in kinds]

    def convolution(
        self, name: str, x: str, pad: int, *, stride: int = 1, dilation: int = 1, after: int | None = None
    ) -> str:
        end = pad if after is None else after
        shape = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad, pad, end, end]}
        return self.node("Conv", x, *self._parameters(name), **shape)

    def transposed(self, name: str, x: str) -> str:
        return self.node("ConvTranspose", x, *self._parameters(name), strides=[2, 2])

    def inception(self, name: str, x: str) -> str:
        near = [self.convolution(f"{name}.{part}", x, 1) for part in "ab"]
        far = self.convolution(f"{name}.c", x, 2, dilation=2)
        joined = self.node("Relu", self.node("Concat", *near, far, axis=1))
        return self.node("Add", self.convolution(f"{name}.r", joined, 0), x)

    def reduction(self, name: str, x: str) -> str:
        wide = [self.node("Relu", self.convolution(f"{name}.{part}", x, 0, stride=2, after=1)) for part in "ab"]
        pooled = self.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        joined = self.convolution(f"{name}.r", self.node("Concat", *wide, pooled, axis=1), 0)
        return self.node("Add", joined, self.convolution(f"{name}.s", x, 0, stride=2))


def model(arrays: Weights, *, residual: bool, full_skip: bool, about: Mapping[str, str]) -> Any:
    """Return the ONNX model of an IRUNet.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        With the names of :class:`wsi_denoise.network.irunet.IRUNet`.
    residual, full_skip : bool
        As for IRUNet.
    about : mapping of str to str
        Metadata of the file.
    """
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415

    graph = _Graph(arrays)
    head = graph.node("Relu", graph.convolution("head", "noisy", 1))
    feature, encoded = head, {}
    for stage in (1, 2, 3, 4):
        feature = graph.inception(f"enc{stage}", graph.reduction(f"red{stage}", feature))
        encoded[stage] = feature
    for stage in (3, 2, 1, 0):
        feature = graph.node("Relu", graph.transposed(f"up{stage}", feature))
        if stage == 0 and full_skip:
            feature = graph.node("Add", feature, head)
        feature = graph.inception(f"dec{stage}", feature)
        if stage in {1, 2}:
            feature = graph.node("Add", feature, encoded[stage])
    last = graph.convolution("tail", feature, 0)
    if residual:
        limits = [graph.constant(name, np.float32(value)) for name, value in (("black", 0.0), ("white", 1.0))]
        last = graph.node("Clip", graph.node("Add", "noisy", last), *limits)
    else:
        last = graph.node("Sigmoid", last)
    graph.nodes[-1].output[0] = "denoised"
    shape = ["n", 3, "height", "width"]
    made = helper.make_graph(
        graph.nodes,
        "irunet",
        [helper.make_tensor_value_info("noisy", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("denoised", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, name) for name, values in graph.constants.items()],
    )
    # An IR version that runtimes of recent years can read; small devices often cannot read the newest one.
    finished = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    helper.set_model_props(finished, dict(about))
    checker.check_model(finished)
    return finished


def export(preset: str, path: Path) -> Path:
    """Write a preset as ONNX.

    Raises
    ------
    NoSuchPreset, WeightsDamaged
    """
    card = weights.card(preset)
    about = {
        "preset": card.name,
        "weights_sha256": card.sha256,
        "licence": card.licence,
        "input": "RGB in [0, 1], sides multiples of 16",
        "use": "research use only" + ("; not for slides" if card.not_for_slides else ""),
    }
    made = model(weights.arrays(preset), residual=card.residual, full_skip=card.full_skip, about=about)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.SerializeToString())
    return path


def measured(preset: str, path: Path, *, runs: int = 100) -> dict[str, Any]:
    """Compare the file with torch, and time one patch on one thread of onnxruntime.

    Raises
    ------
    ValueError
        If the results differ from torch's.
    """
    import onnxruntime  # noqa: PLC0415 - comes with the extra `train`

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    network = weights.load(preset)
    rng = np.random.default_rng(0)
    difference = 0.0
    for height, width in ((SIDE, SIDE), (160, 64)):
        x = rng.random((2, 3, height, width), np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(x)).numpy()
        difference = max(difference, float(np.abs(session.run(None, {"noisy": x})[0] - expected).max()))
    if difference > TOLERANCE:
        raise ValueError(f"{path} differs from torch by {difference:.1e}")
    patch = rng.random((1, 3, SIDE, SIDE), np.float32)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        session.run(None, {"noisy": patch})
        times.append(time.perf_counter() - started)
    card = weights.card(preset)
    return {
        "preset": preset,
        "sha256": card.sha256,
        "parameters": card.parameters,
        "bytes": path.stat().st_size,
        "patch_ms": round(1000.0 * statistics.median(times), 2),
        "patch_ms_least": round(1000.0 * min(times), 2),
        "runs": runs,
        "largest_difference": float(f"{difference:.1e}"),
        "onnxruntime": onnxruntime.__version__,
        "machine": f"one thread, {processor.here().name}",
    }


def main(arguments: list[str] | None = None) -> None:
    """Write ONNX files for the command-line options."""
    options = argparse.ArgumentParser(prog="python -m training.publish.onnx", description=__doc__)
    options.add_argument("preset", nargs="*", help="presets to write; all, if none is named")
    options.add_argument("--out", type=Path, default=Path(), help="folder for NAME.onnx")
    options.add_argument("--table", type=Path, help="JSON of sizes and times to write")
    given = options.parse_args(arguments)
    rows = []
    for preset in given.preset or [card.name for card in weights.presets()]:
        path = export(preset, given.out / f"{preset}.onnx")
        row = measured(preset, path)
        rows.append(row)
        print(
            f"{path}: {row['bytes']:,} bytes, one patch of {SIDE} x {SIDE} px in {row['patch_ms']} ms "
            f"(least {row['patch_ms_least']}; {row['machine']}), within {row['largest_difference']:.0e} of torch"
        )
    if given.table:
        pages.write_json(given.table, {"rows": rows})


if __name__ == "__main__":
    main()
