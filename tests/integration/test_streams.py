"""A daemon starts, runs and stops with any standard streams."""

import pytest

from support.workplace import Workplace


@pytest.mark.parametrize("streams", [">&- 2>&- <&-", "> /dev/full 2> /dev/full"])
def test_a_daemon_starts_and_stops(tmp_path, streams):
    place = Workplace(tmp_path / "lab", {"compute": {"threads": 1, "device": "cpu"}})
    try:
        place.start(before=("bash", "-c", f'exec "$@" {streams}', "-"))
        place.wait(place.is_registered, "the daemon is registered")
        place.wait(lambda: any(daemon.device for daemon in place.store.daemons()), "a worker answers")
        place.stop()
        assert "Traceback" not in (place.folder / ".wsi-denoise" / "logs" / "daemon.log").read_text("utf-8")
    finally:
        place.close()
