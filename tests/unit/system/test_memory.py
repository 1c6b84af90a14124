"""Memory goes back to the system."""

import gc
import subprocess
import sys
import weakref

import psutil
import pytest
from sqlalchemy import Engine, event, text

from wsi_denoise.jobs.store import JobStore
from wsi_denoise.system import memory

WHOLE = memory.limit()


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1000"}, 1000),
        ("0::/lab.slice/wsi.service\n", {"lab.slice/wsi.service/memory.max": "1000"}, 1000),
        ("0::/lab.slice/wsi.service\n", {"lab.slice/wsi.service/memory.max": "max", "lab.slice/memory.high": "7"}, 7),
        ("0::/lab.slice/wsi.service\n", {"other.slice/memory.max": "5", "memory.max": "3000"}, 3000),
        ("5:cpu:/\n4:cpuset,memory:/docker/x\n", {"memory/docker/x/memory.limit_in_bytes": "1000"}, 1000),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "1000"}, 1000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, WHOLE),
        ("0::/../outside\n", {}, WHOLE),
        ("0::/\n", {"memory.max": "max"}, WHOLE),
        (None, {}, WHOLE),
    ],
)
def test_the_limit_is_the_least_of_machine_and_control_groups(tmp_path, groups, files, limit):
    (tmp_path / "proc/self").mkdir(parents=True)
    if groups:
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text_ in files.items():
        place = tmp_path / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text_}\n")
    assert memory.limit(tmp_path) == (limit if limit != WHOLE else psutil.virtual_memory().total)


PROGRAM = """
import sys, threading
from pathlib import Path
from wsi_denoise.system import memory

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

kept = []

def work():
    with turn:
        many = [bytes(2000) for _ in range(20_000)]
        kept.extend(many[::200])  # small pieces in use, all over what is freed
        del many
    gate.wait()

if sys.argv[1] == "one arena":
    assert memory.share_one_arena()
before = megabytes()
turn, gate = threading.Lock(), threading.Barrier(6)
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
held = megabytes() - before
memory.give_back()
print(held, megabytes() - before)
"""


def held(arenas):
    """Megabytes that a process holds after six threads made and freed 40 MB each in turn, and after giving back."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, arenas], capture_output=True, text=True, check=True)
    return [float(figure) for figure in ended.stdout.split()]


def test_threads_do_not_hold_an_arena_each():
    many, _ = held("an arena for each thread")
    one, _ = held("one arena")
    assert one < many / 2


def test_what_was_freed_goes_back_although_small_pieces_are_in_use():
    before, after = held("an arena for each thread")
    assert after < before / 4


def test_circles_are_freed_without_waiting_for_python_to_look():
    class Circle:
        def __init__(self):
            self.itself = self

    gc.disable()
    try:
        circle = weakref.ref(Circle())
        assert circle() is not None
        memory.GivingBack().look()
        assert circle() is None
    finally:
        gc.enable()


def test_a_folder_that_fills_leaves_no_statement_for_each_number_of_files(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    asked = set()

    def listen(_connection, _cursor, statement, *_rest):
        asked.add(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        for number in range(1, 700, 3):
            assert store.known([f"/inbox/{each}" for each in range(number)]) == {}
    finally:
        event.remove(Engine, "before_cursor_execute", listen)
        store.close()
    assert 0 < len(asked) < 10


def test_a_connection_keeps_little_of_a_large_database(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    try:
        for session in (store.reading, store.writing):
            with session() as opened:
                assert opened.scalar(text("PRAGMA cache_size")) == -256  # KiB
    finally:
        store.close()
