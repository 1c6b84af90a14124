"""A preset as ONNX gives what torch gives, at any size, in either kind of output."""

import json

import numpy as np
import pytest
import torch

from training.publish import onnx as export
from wsi_denoise.network.irunet import IRUNet

openvino = pytest.importorskip("openvino", reason="OpenVINO reads the files here, and is not installed")
pytest.importorskip("onnx", reason="onnx is not installed (extra train)")


@pytest.mark.parametrize(("residual", "full_skip"), [(True, True), (False, False)])
def test_the_graph_is_the_network(tmp_path, residual, full_skip):
    torch.manual_seed(1)
    network = IRUNet(4, residual=residual, full_skip=full_skip).eval()
    network.tail.weight.data.normal_(0, 0.2)
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    made = export.model(arrays, residual=residual, full_skip=full_skip, about={"preset": "test"})
    path = tmp_path / "test.onnx"
    path.write_bytes(made.SerializeToString())
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 3, 96, 96), (2, 3, 32, 80)):
        x = np.random.default_rng(2).random(shape, np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(x)).numpy()
        assert np.abs(compiled([x])[0] - expected).max() < 1e-4
        assert expected.std() > 0.05


def test_the_command_writes_checks_and_times_a_preset(tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra train)")
    export.main(["paper", "--out", str(tmp_path), "--table", str(tmp_path / "onnx.json")])
    row = json.loads((tmp_path / "onnx.json").read_text())["rows"][0]
    assert row["bytes"] == (tmp_path / "paper.onnx").stat().st_size
    assert 4 * row["parameters"] < row["bytes"] < 4 * row["parameters"] + 50_000
    assert row["largest_difference"] < 1e-4
    assert "paper.onnx" in capsys.readouterr().out


def test_a_file_of_other_weights_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra train)")
    path = export.export("paper", tmp_path / "paper.onnx")
    other = IRUNet(16, residual=True, full_skip=True).eval()
    monkeypatch.setattr(export.weights, "load", lambda _name: other)
    with pytest.raises(ValueError, match="differs from torch"):
        export.measured("paper", path, runs=1)
