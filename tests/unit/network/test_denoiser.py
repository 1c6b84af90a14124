"""The network on pixels: backends agree, and precision costs little."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from wsi_denoise.errors import DeviceOutOfMemory, SettingsInvalid
from wsi_denoise.network.backends.torch_backend import place
from wsi_denoise.network.denoiser import Denoiser, choose, default_window, describe_device
from wsi_denoise.network.irunet import IRUNet
from wsi_denoise.network.plan import Plan
from wsi_denoise.settings import ComputeSettings

openvino = pytest.importorskip("openvino", reason="OpenVINO is an extra (cpu)")


def plan(backend: str, precision: str, batch: int = 1) -> Plan:
    return Plan("cpu", backend, precision, 1, batch)


@pytest.fixture(scope="module")
def noisy(tissue_image: np.ndarray) -> np.ndarray:
    clean = tissue_image[:192, :288].astype(np.float64)
    drawn = np.random.default_rng(3).normal(0, 25, clean.shape)
    return np.clip(np.rint(clean + drawn), 0, 255).astype(np.uint8)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other)


@pytest.mark.parametrize(("residual", "full_skip"), [(True, True), (True, False), (False, False)])
def test_the_openvino_graph_is_the_torch_network(noisy: np.ndarray, residual: bool, full_skip: bool) -> None:
    torch.manual_seed(1)
    network = IRUNet(16, residual=residual, full_skip=full_skip)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    windows = np.stack([noisy[:96, :96], noisy[96:, 96:192]])
    want = Denoiser(network, plan("torch", "fp32")).denoise(windows)
    got = Denoiser(network, plan("openvino", "fp32")).denoise(windows)
    assert difference(want, windows).mean() > 1, "the network does nothing, so that agreeing means nothing"
    assert difference(want, got).max() <= 1
    assert (want != got).mean() < 0.001


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_the_shipped_network_brings_noisy_tissue_closer_to_the_clean(
    noisy: np.ndarray, tissue_image: np.ndarray, backend: str
) -> None:
    after = Denoiser("paper", plan(backend, "fp32")).denoise(noisy[None])[0]
    clean = tissue_image[:192, :288].astype(float)
    before_error, after_error = np.mean((noisy - clean) ** 2), np.mean((after - clean) ** 2)
    assert 10 * np.log10(before_error / after_error) > 7


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_half_precision_costs_less_than_a_grey_level(noisy: np.ndarray, backend: str) -> None:
    full = Denoiser("paper", plan("torch", "fp32")).denoise(noisy[None])
    half = Denoiser("paper", plan(backend, "bf16")).denoise(noisy[None])
    assert difference(full, half).mean() < 0.5
    assert difference(full, half).max() <= 4


def test_windows_of_a_batch_do_not_see_each_other(noisy: np.ndarray) -> None:
    windows = np.stack([noisy[:96, :96], noisy[96:, 192:]])
    denoiser = Denoiser("paper", plan("openvino", "fp32"))
    together = denoiser.denoise(windows)
    alone = np.concatenate([denoiser.denoise(windows[:1]), denoiser.denoise(windows[1:])])
    assert difference(together, alone).max() <= 1


def test_callers_do_not_wait_for_each_other(noisy: np.ndarray) -> None:
    # A compiled network of one stream serves one caller after the other, however many cores there are.
    denoiser = Denoiser("paper", plan("openvino", "fp32"), callers=2)
    denoiser.denoise(noisy[None, :96, :96])
    (compiled,) = denoiser._backend._compiled.values()
    assert compiled.get_property("NUM_STREAMS") == min(2, len(os.sched_getaffinity(0)))


def test_the_input_is_not_written_to(noisy: np.ndarray) -> None:
    windows = noisy[None, :96, :96].copy()
    windows.flags.writeable = False
    for backend in ("torch", "openvino"):
        Denoiser("paper", plan(backend, "fp32")).denoise(windows)


def test_choosing_says_what_it_is() -> None:
    chosen = choose(ComputeSettings(device="cpu", backend="torch", precision="fp32", window=2))
    assert chosen == Plan("cpu", "torch", "fp32", 2, 1)
    assert (
        chosen.numerics != choose(ComputeSettings(device="cpu", backend="torch", precision="bf16", window=2)).numerics
    )


@pytest.mark.parametrize(
    ("device", "backend", "filters", "gigabytes", "window"),
    [
        ("cpu", "openvino", 16, 3, 16),
        ("cpu", "openvino", 16, 2, 8),
        ("cpu", "openvino", 44, 4, 8),
        ("cpu", "openvino", 44, 5, 16),
        ("cpu", "torch", 16, 64, 8),
        ("cuda", "torch", 44, 1, 16),
    ],
)
def test_large_windows_are_for_those_who_have_the_memory(device, backend, filters, gigabytes, window) -> None:
    assert default_window(device, backend, gigabytes * 2**30, filters) == window


def test_a_wide_network_is_planned_for_what_it_needs(monkeypatch) -> None:
    # The machine's memory is all that is made up.
    monkeypatch.setattr("wsi_denoise.system.memory.limit", lambda: 4 * 2**30 * (os.cpu_count() or 1))
    compute = ComputeSettings(device="cpu", backend="openvino")
    assert [choose(compute, filters).window for filters in (16, 44)] == [16, 8]
    assert choose(compute.model_copy(update={"window": 16}), 44).window == 16
    for preset, said in (("paper", "of 16 patches"), ("fine", "of 8 patches"), ("missing", "of 16 patches")):
        assert said in describe_device(compute, preset)


def test_smaller_windows_are_halves_and_a_gpu_has_no_small_ones() -> None:
    assert Plan("cpu", "openvino", "bf16", 16, 1).sides == (16, 8, 4, 2)
    assert Plan("cuda", "torch", "fp16", 16, 2).sides == (16, 8)
    assert Plan("cpu", "torch", "fp32", 6, 1).sides == (6, 3)
    assert Plan("cpu", "torch", "fp32", 1, 1).sides == (1,)
    assert Plan("cpu", "torch", "fp32", 1, 1).fitted > Plan("cuda", "torch", "fp16", 16, 2).fitted == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fitted_window_gives_the_same_pixels(noisy: np.ndarray, precision: str) -> None:
    denoiser = Denoiser("paper", plan("openvino", precision))
    for height, width in ((192, 288), (112, 96), (96, 272), (192, 288)):
        windows = noisy[None, :height, :width]
        np.testing.assert_array_equal(denoiser.denoise(windows, fitted=True), denoiser.denoise(windows))


def test_windows_of_any_size_do_not_each_compile_a_network(noisy: np.ndarray) -> None:
    denoiser = Denoiser("paper", plan("openvino", "fp32"))
    for width in range(96, 288, 16):
        denoiser.denoise(noisy[None, :96, :width], fitted=True)
    assert len(denoiser._backend._compiled) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory")
def test_windows_of_many_sizes_do_not_fill_the_memory() -> None:
    code = (
        "import numpy as np, psutil\n"
        "from wsi_denoise.network.denoiser import Denoiser\n"
        "from wsi_denoise.network.plan import Plan\n"
        "denoiser = Denoiser('paper', Plan('cpu', 'openvino', 'fp32', 1, 1))\n"
        "sizes = [(height, width) for height in range(96, 176, 16) for width in range(96, 288, 16)]\n"
        "seen = []\n"
        "for number, size in enumerate([(320, 320), *sizes]):\n"
        "    denoiser.denoise(np.zeros((1, *size, 3), np.uint8), fitted=True)\n"
        "    seen.append(psutil.Process().memory_info().rss)\n"
        "print((seen[-1] - seen[20]) / 1e6)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(ran.stdout) < 40, "40 sizes more, and OpenVINO keeps 3 MB of each by default"


def test_workers_take_gpus_in_turn() -> None:
    assert [place("cuda", number, 3) for number in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert place("cuda", 2, 0) == "cuda:0", "CUDA then reports the missing device"
    assert place("cpu", 2, 3) == "cpu"


def test_threads_of_a_torch_worker_do_not_mix_their_windows(noisy: np.ndarray) -> None:
    denoiser = Denoiser("paper", plan("torch", "fp32"), callers=4)
    windows = [noisy[None, y : y + 96, x : x + 96] for y in (0, 48, 96) for x in (0, 96, 192)]
    want = [denoiser.denoise(each) for each in windows]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(want * 3, pool.map(denoiser.denoise, windows * 3), strict=True):
            np.testing.assert_array_equal(one, other)


class SmallDevice:
    """Stands in for a device that has memory for so many windows at a time."""

    def __init__(self, room: int) -> None:
        self.room, self.inside, self.most = room, 0, 0
        self.lock = threading.Lock()

    def denoise(self, windows: np.ndarray, *, fitted: bool) -> np.ndarray:
        with self.lock:
            self.inside += len(windows)
            fits = self.inside <= self.room
            self.most = max(self.most, self.inside if fits else 0)
        time.sleep(0.01)
        with self.lock:
            self.inside -= len(windows)
        if not fits:
            raise DeviceOutOfMemory(f"{len(windows)} windows")
        return 255 - windows


@pytest.mark.parametrize(("room", "threads"), [(1, 8), (3, 8), (8, 8), (2, 1)])
def test_threads_take_turns_on_a_device_that_has_no_room_for_all(room, threads) -> None:
    denoiser = Denoiser("paper", plan("torch", "fp32"), callers=threads)
    denoiser._backend = device = SmallDevice(room)
    given = [np.full((2, 16, 16, 3), number, np.uint8) for number in range(40)]
    with ThreadPoolExecutor(threads) as pool:
        for windows, found in zip(given, pool.map(denoiser.denoise, given), strict=True):
            np.testing.assert_array_equal(found, 255 - windows)
    assert device.most > 0
    assert device.inside == 0


def test_a_device_without_room_for_one_window_says_so() -> None:
    denoiser = Denoiser("paper", plan("torch", "fp32"), callers=4)
    denoiser._backend = SmallDevice(0)
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(denoiser.denoise, np.zeros((2, 16, 16, 3), np.uint8)) for _ in range(4)]:
            assert isinstance(future.exception(timeout=60), DeviceOutOfMemory)


@pytest.mark.parametrize("wrong", [{"device": "cpu", "precision": "fp16"}, {"device": "cuda", "backend": "openvino"}])
def test_what_cannot_be_had_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsInvalid):
        choose(ComputeSettings(**wrong))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's modules")
def test_openvino_needs_no_torch() -> None:

    code = (
        "import sys, numpy as np\n"
        "from wsi_denoise.network.denoiser import Denoiser\n"
        "from wsi_denoise.network.plan import Plan\n"
        "Denoiser('paper', Plan('cpu', 'openvino', 'fp32', 1, 1)).denoise(np.zeros((1, 96, 96, 3), np.uint8))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
