"""The first inference of a process may come from several threads at once."""

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")

PROGRAM = """
import os, sys, threading
sys.setswitchinterval(1e-6)
import wsi_denoise.network.backends.openvino_backend
import openvino

together = threading.Barrier(8)

def call():
    together.wait()
    openvino.Type.f32.to_dtype()

threads = [threading.Thread(target=call) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os._exit(0)
"""


def test_threads_that_meet_in_openvinos_first_call_do_not_wait_for_each_other():
    # Without the call at import this hangs, and not even the main thread gets the GIL again.
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)
