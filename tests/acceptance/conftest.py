"""Workplaces for daemons; no test leaves a process behind."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.workplace import Workplace


@pytest.fixture(scope="session")
def open_workplace(tmp_path_factory) -> Callable[..., contextlib.AbstractContextManager[Workplace]]:
    """Make workplaces for whole modules."""

    @contextlib.contextmanager
    def opened(*args: Any, **named: Any) -> Iterator[Workplace]:
        place = Workplace(tmp_path_factory.mktemp("place") / "lab", *args, **named)
        try:
            yield place
        finally:
            place.close()
        assert not place.processes()

    return opened


@pytest.fixture
def workplace(open_workplace) -> Iterator[Callable[..., Workplace]]:
    """Make workplaces for one test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **named: stack.enter_context(open_workplace(*args, **named))


@pytest.fixture(scope="session")
def copy_in() -> Callable[[Path, Path], Path]:
    """Copy a file or folder that may be read-only; the copy can be removed."""

    def copy(source: Path, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            return Path(shutil.copyfile(source, target))
        for file in sorted(source.rglob("*")):
            if file.is_file():
                copy(file, target / file.relative_to(source))
        return target

    return copy
