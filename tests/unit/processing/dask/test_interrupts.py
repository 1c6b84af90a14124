"""Processes started under `interrupts_deferred` never receive Ctrl-C; the main process handles it at the end."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from wsi_denoise.processing.dask.interrupts import interrupts_deferred, silence_resource_tracker

BLOCKED = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"


def child_blocks_sigint() -> bool:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_a_child_started_inside_has_sigint_blocked_and_one_started_later_has_not():
    with interrupts_deferred():
        assert child_blocks_sigint()
    assert not child_blocks_sigint()


def test_a_thread_started_inside_passes_the_mask_on_to_processes_it_starts_later():
    start, found = threading.Event(), []

    def late() -> None:
        start.wait()
        found.append(child_blocks_sigint())

    with interrupts_deferred():
        thread = threading.Thread(target=late)
        thread.start()
    start.set()
    thread.join()
    assert found == [True]


def test_the_first_process_of_multiprocessing_has_sigint_blocked():
    """Starting its resource tracker unblocks the signal in the thread that does so."""
    program = """
import multiprocessing, signal
from wsi_denoise.processing.dask.interrupts import interrupts_deferred

def blocked():
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

if __name__ == "__main__":
    with interrupts_deferred(), multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(blocked))
"""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.py"
        file.write_text(program)
        done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handled_once_at_the_end_by_the_handler_of_before(number):
    received = []
    before = signal.signal(number, lambda number, _frame: received.append(number))
    try:
        with interrupts_deferred():
            os.kill(os.getpid(), number)
            assert not received
        # The kernel may have chosen another thread of this process, which needs its turn on the processor.
        end = time.monotonic() + 60
        while not received and time.monotonic() < end:
            time.sleep(0.01)
        assert received == [number]
    finally:
        signal.signal(number, before)


def test_ctrl_c_ends_as_a_keyboard_interrupt_after_the_start():
    done = []

    def start() -> None:
        with interrupts_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("started")
        time.sleep(60)  # until the signal is handled, which another thread may have received

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["started"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_users_warning_filters_are_kept(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error::BytesWarning")
    silence_resource_tracker()
    silence_resource_tracker()
    assert os.environ["PYTHONWARNINGS"] == "error::BytesWarning,ignore:resource_tracker:UserWarning"


def test_a_killed_program_leaves_no_warning_about_semaphores(monkeypatch):
    """As at the second Ctrl-C. Without the filter Python prints "leaked semaphore objects"."""
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    program = """
import multiprocessing, os
from wsi_denoise.processing.dask.interrupts import silence_resource_tracker
silence_resource_tracker()
lock = multiprocessing.get_context("spawn").Lock()
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # The tracker holds standard error open, so everything it prints is here.
    assert done.stderr == ""
