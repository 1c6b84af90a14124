"""docs/programs/json.md says what the code prints."""

import json
from dataclasses import fields
from pathlib import Path

from wsi_denoise.errors import WorkerLost
from wsi_denoise.jobs.states import ALLOWED
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.jobs.values import Attempt, Event, Job

DOCS = (Path(__file__).parents[3] / "docs" / "programs" / "json.md").read_text("utf-8")


def table(heading):
    """Rows of the table with this first heading, as lists of cells."""
    rows = DOCS.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names(cell):
    return [name.strip(" `") for name in cell.split(",") if name.strip()]


def test_the_keys_of_a_job_are_documented():
    documented = [name for row in table("key") for name in names(row[0])]
    assert sorted(documented) == sorted(field.name for field in fields(Job))


def test_the_states_are_documented():
    documented = {names(row[0])[0]: set(names(row[2])) for row in table("state")}
    assert documented == {state.value: {new.value for new in following} for state, following in ALLOWED.items()}


def test_the_keys_of_events_and_attempts_are_documented():
    for kind, heading in ((Event, "## Events of a job"), (Attempt, "## Attempts of a job")):
        section = DOCS.partition(heading)[2].partition("\n## ")[0]
        assert all(f"`{field.name}`" in section for field in fields(kind)), kind


def test_a_job_with_its_history_is_json(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    daemon = store.register_daemon()
    job = store.see("/inbox/\udcff.svs", "\udcff.svs", size_bytes=1, mtime_ns=2, preset="paper", origin="daemon:1")
    store.queue(
        job.id, fingerprint="f", settings={}, settings_hash="s", preset="paper", origin="t", region=(0, 0, 96, 96)
    )
    store.claim(daemon, 60)
    store.fail(job.id, WorkerLost(), "daemon:1", holder=daemon)
    details = json.loads(json.dumps(store.details(job.id)))
    store.close()
    assert set(details) == {field.name for field in fields(Job)} | {"events", "attempt_list"}
    assert [event["kind"] for event in details["events"]] == ["seen", "queued", "running", "failed"]
    assert [attempt["outcome"] for attempt in details["attempt_list"]] == ["failed"]
    assert details["region"] == [0, 0, 96, 96]
    assert details["slide"] == job.slide
    assert details["finished"].endswith("Z")
