"""Batches that do not fit: halved, remembered, same pixels. The allocations that fail are real ones."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from wsi_denoise.errors import DeviceOutOfMemory
from wsi_denoise.network.denoiser import Denoiser
from wsi_denoise.network.plan import Plan

PROGRAM = textwrap.dedent(
    """
    import resource, sys
    import numpy as np
    from wsi_denoise.errors import DeviceOutOfMemory
    from wsi_denoise.network.denoiser import Denoiser
    from wsi_denoise.network.plan import Plan

    side, room = 480, int(sys.argv[2]) << 20
    denoiser = Denoiser("paper", Plan("cpu", sys.argv[1], "fp32", 4, 1), callers=1)
    one = np.random.default_rng(0).integers(0, 255, (1, side, side, 3), np.uint8)
    expected = denoiser.denoise(one)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + room, before[1]))
    try:
        result = denoiser.denoise(np.repeat(one, 16, axis=0))
    except DeviceOutOfMemory as error:
        print("refused", error.detail)
    else:
        resource.setrlimit(resource.RLIMIT_AS, before)  # what follows is the test's own
        print("done", denoiser._most, int(np.abs(result.astype(int) - expected).max()), len(result))
    """
)


def run(backend: str, room: int) -> list[str]:
    """Denoise sixteen windows with so many megabytes to spare, and return the last line that was printed."""
    program = [sys.executable, "-c", PROGRAM, backend, str(room)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_real_failure_to_allocate_halves_the_batch(backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    said, most, difference, count = run(backend, 500)
    assert said == "done"
    assert int(most) < 16
    assert int(difference) <= 1
    assert int(count) == 16


class Small:
    """A device with room for three windows; the rest is the program's own."""

    def __init__(self, room: int = 3) -> None:
        self.room, self.tried = room, []

    def denoise(self, windows: np.ndarray, *, fitted: bool) -> np.ndarray:
        self.tried.append(len(windows))
        if len(windows) > self.room:
            raise DeviceOutOfMemory(f"{len(windows)} windows")
        return 255 - windows


def on(device: Small) -> Denoiser:
    made = Denoiser("paper", Plan("cpu", "torch", "fp32", 4, 1), callers=1)
    made._backend = device
    return made


def test_what_was_found_is_remembered_and_the_order_is_kept():
    windows = np.arange(10 * 16 * 16 * 3, dtype=np.uint32).reshape(10, 16, 16, 3).astype(np.uint8)
    device = Small()
    denoiser = on(device)
    np.testing.assert_array_equal(denoiser.denoise(windows), 255 - windows)
    assert device.tried == [10, 5, 3, 3, 3, 1]
    device.tried.clear()
    np.testing.assert_array_equal(denoiser.denoise(windows[:7]), 255 - windows[:7])
    assert device.tried == [3, 3, 1]


def test_no_room_for_a_single_window_is_told():
    with pytest.raises(DeviceOutOfMemory, match="1 windows"):
        on(Small(room=0)).denoise(np.zeros((4, 16, 16, 3), np.uint8))
