"""The first block of a worker runs alone, the others side by side."""

import threading

import pytest

from wsi_denoise.processing.dask import tasks


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(tasks, "_first_done", threading.Event())


def test_others_wait_for_the_first():
    entered, leave, order = threading.Event(), threading.Event(), []

    def first():
        with tasks._first_alone():
            entered.set()
            leave.wait(10)
            order.append("first")

    def second():
        with tasks._first_alone():
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]


def test_later_ones_run_side_by_side():
    with tasks._first_alone():
        pass
    together = threading.Barrier(2)

    def block():
        with tasks._first_alone():
            together.wait(10)

    threads = [threading.Thread(target=block) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not together.broken


def test_a_first_that_fails_does_not_keep_the_others_waiting():
    with pytest.raises(ValueError, match="damaged"), tasks._first_alone():
        raise ValueError("damaged")
    with tasks._first_alone():
        pass
