"""The compose files say what the program understands; no container engine is needed to see that."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from wsi_denoise.cli.app import app
from wsi_denoise.settings import load

ROOT = Path(__file__).parents[2]
FILES = ("compose.yaml", "compose.cluster.yaml")
PREFIX = "WSI_DENOISE_"


def services(name: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))["services"]


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_a_setting(name, tmp_path):
    given = {
        key: value.replace("${POSTGRES_PASSWORD}", "secret").replace("${WSI_DENOISE_TOKEN", "long enough for a token")
        for service in services(name).values()
        for key, value in service.get("environment", {}).items()
        if key.startswith(PREFIX)
    }
    assert given
    loaded = load(folder=tmp_path, environ=given)
    for key in given:
        section, field = key.removeprefix(PREFIX).lower().split("__")
        assert getattr(getattr(loaded.settings, section), field)


@pytest.mark.parametrize("name", FILES)
def test_folders_are_those_of_the_working_folder(name, tmp_path):
    settings = load(folder=tmp_path, environ={}).settings
    own = {*settings.intake.inbox, settings.output.folder, settings.intake.quarantine, settings.jobs.state}
    known = {f"/data/{folder.relative_to(tmp_path)}" for folder in own}
    for service in services(name).values():
        if service.get("image", "").startswith("postgres"):
            continue
        mounted = {place.split(":")[1] for place in service["volumes"]}
        assert mounted <= known
        if "dask" not in service.get("entrypoint", []):
            assert mounted == known
    workers = services("compose.cluster.yaml")["worker"]["volumes"]
    assert {place.split(":")[1] for place in workers} == {"/data/inbox", "/data/denoised", "/data/.wsi-denoise"}


def test_the_daemon_and_the_workers_meet_at_the_scheduler():
    found = services("compose.cluster.yaml")
    command = found["wsi-denoise"]["command"]
    address = command[command.index("--scheduler") + 1]
    assert address == f"tcp://{'scheduler'}:8786"
    assert address in found["worker"]["entrypoint"]
    told = CliRunner().invoke(app, [command[0], "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert told.exit_code == 0
    assert all(option in told.output for option in command if option.startswith("--"))
