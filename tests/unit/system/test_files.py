"""Files that are written whole or not at all."""

import errno
import os
import stat
import threading

import pytest

from wsi_denoise.system.files import atomic_file, atomic_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["hard links", "no hard links"])
def folder(request, tmp_path, monkeypatch):
    if request.param == "no hard links":

        def refuse(*_args, **_named):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    return tmp_path


def test_a_file_appears_complete(folder):
    target = folder / "a.bin"
    with atomic_file(target) as file:
        file.write(b"half")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert names(folder) == ["a.bin"]


def test_an_error_leaves_the_old_file_and_nothing_else(folder):
    target = folder / "a.bin"
    target.write_bytes(b"old")

    def fail():
        with atomic_file(target) as file:
            file.write(b"new")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert target.read_bytes() == b"old"
    assert names(folder) == ["a.bin"]


def test_a_file_is_replaced_only_when_that_is_allowed(folder):
    target = folder / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError), atomic_file(target, replace=False) as file:
        file.write(b"new")
    assert target.read_bytes() == b"old"
    with atomic_file(target) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"
    assert names(folder) == ["a.bin"]


def test_without_replacing_the_first_of_two_writers_wins(tmp_path):
    target, barrier, lost = tmp_path / "a.bin", threading.Barrier(8), []

    def write(number):
        try:
            with atomic_file(target, replace=False) as file:
                file.write(bytes([number]) * 1000)
                barrier.wait(30)
        except FileExistsError:
            lost.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(lost) == 7
    (winner,) = set(range(8)) - set(lost)
    assert target.read_bytes() == bytes([winner]) * 1000


def test_the_longest_name_of_a_file_system_can_be_written(folder):
    target = folder / ("ä" * 127)
    with atomic_path(target) as part:
        part.write_bytes(b"x")
    assert target.read_bytes() == b"x"


def test_a_private_file_is_never_readable_by_others(folder):
    with atomic_file(folder / "secret", mode=0o600) as file:
        (part,) = folder.iterdir()
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        file.write(b"x")
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
