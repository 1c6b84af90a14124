"""The command line with real arguments and a real store: output and exit code."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from sqlalchemy import text

from support.stores import open_store
from wsi_denoise import settings
from wsi_denoise.cli import app, dashboard, serve
from wsi_denoise.cli.printing import _cell
from wsi_denoise.errors import TruncatedSlide
from wsi_denoise.jobs.database.engine import Database
from wsi_denoise.jobs.query import moment
from wsi_denoise.slide import demo

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HEAVY = {"torch", "tiatoolbox", "dask", "distributed", "openslide", "tifffile", "numpy", "streamlit", "cv2"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory, and no settings from outside."""
    for name in list(os.environ):
        if name.startswith("WSI_DENOISE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(here):
    with open_store(f"sqlite:///{here / '.wsi-denoise' / 'jobs.sqlite'}") as store:
        yield store


def seen(store, name, *, queued=True, content="f" * 64):
    job = store.see(f"/scans/{name}", name, size_bytes=10, mtime_ns=1, preset="paper", origin="daemon:1")
    if queued:
        return store.queue(
            job.id, fingerprint=content, settings={}, settings_hash="0" * 16, preset="paper", origin="daemon:1"
        )
    return job


def call(capsys, *arguments):
    code = app.run(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def answer(capsys, *arguments):
    code, out, _ = call(capsys, *arguments, "--json")
    return code, json.loads(out)


# --- jobs ---------------------------------------------------------------------------------------------------------


def test_jobs_where_nothing_ever_ran_is_empty_and_leaves_nothing_behind(capsys, here):
    assert answer(capsys, "jobs") == (0, {"jobs": [], "total": 0})
    assert list(here.iterdir()) == []


def test_jobs_json_has_the_promised_keys(capsys, store):
    seen(store, "a.svs")
    code, found = answer(capsys, "jobs")
    assert code == 0
    assert found["total"] == 1
    promised = {
        "id", "slide", "state", "verdict", "preset", "progress", "created", "started", "finished", "output",
        "attempts", "error_code", "error", "metrics",
    }  # fmt: skip
    assert promised <= found["jobs"][0].keys()
    assert found["jobs"][0]["created"].endswith("Z")


def test_jobs_filters_by_state_and_slide_and_counts_past_the_limit(capsys, store):
    seen(store, "a.svs", content="a" * 64)
    seen(store, "b.svs", content="b" * 64)
    seen(store, "c.svs", queued=False)
    assert answer(capsys, "jobs", "--state", "queued", "--limit", "1")[1]["total"] == 2
    assert len(answer(capsys, "jobs", "--state", "queued,settling")[1]["jobs"]) == 3
    assert [job["slide"] for job in answer(capsys, "jobs", "--slide", "B.SVS")[1]["jobs"]] == ["/scans/b.svs"]
    assert answer(capsys, "jobs", "--since", "1h")[1]["total"] == 3
    assert answer(capsys, "jobs", "--until", "1h")[1]["total"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ("--state", "nope"),
        ("--verdict", "good"),
        ("--since", "yesterday"),
        ("--limit", "-1"),
        ("--limit", "9223372036854775808"),
        ("--bad",),
    ],
)
def test_a_wrong_question_is_wrong_usage(capsys, store, wrong):
    code, found = answer(capsys, "jobs", *wrong)
    assert code == 2
    assert found["error_code"] == "usage"
    assert wrong[-1].strip("-") in found["error"]


def test_csv_has_one_line_per_job_whatever_the_names(capsys, store):
    seen(store, 'a,"b"\nc.svs')
    _, out, _ = call(capsys, "jobs", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 1
    assert rows[0]["slide"] == '/scans/a,"b"\nc.svs'


def test_csv_has_every_job_unless_a_limit_is_given_and_then_says_so(capsys, store):
    for number in range(101):
        seen(store, f"{number}.svs", queued=False)
    _, out, err = call(capsys, "jobs", "--csv")
    assert (len(out.splitlines()), err) == (1 + 101, "")
    _, out, err = call(capsys, "jobs", "--csv", "--limit", "100")
    assert (len(out.splitlines()), err) == (1 + 100, "100 of 101 jobs.\n")
    assert len(answer(capsys, "jobs")[1]["jobs"]) == 100


def test_a_formula_in_a_csv_is_text(capsys, store):
    job = seen(store, "a.svs", queued=False)
    store.quarantine(job.id, TruncatedSlide("=1+1"), "daemon:1")
    _, out, _ = call(capsys, "jobs", "--csv")
    assert "truncated" in out
    assert _cell("=1+1") == "'=1+1"


def test_names_reach_the_terminal_as_text_only(capsys, store):
    seen(store, "a\x1b[2J\nb.svs")
    _, out, _ = call(capsys, "jobs")
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


def test_a_name_that_is_no_text_is_printed(store):
    seen(store, "caf\udce9.svs")
    done = subprocess.run(
        [sys.executable, "-m", "wsi_denoise.cli.app", "jobs"],
        check=False,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("jobs", [1, 60])
def test_a_reader_that_goes_away_is_no_failure(store, jobs):
    # One job is written at the end; many do not fit into the buffer and are written while the command runs.
    for number in range(jobs):
        seen(store, f"{number}.svs", queued=False)
    command = f"{sys.executable} -m wsi_denoise.cli.app jobs --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- one job ------------------------------------------------------------------------------------------------------


def test_job_shows_events_and_attempts(capsys, store):
    job = seen(store, "a.svs")
    code, found = answer(capsys, "job", str(job.id))
    assert code == 0
    assert found["events"][0]["kind"] == "seen"
    assert found["attempt_list"] == []
    code, out, _ = call(capsys, "job", str(job.id))
    assert code == 0
    assert "/scans/a.svs" in out
    assert "Events" in out


@pytest.mark.parametrize("command", [("job", "7"), ("retry", "7"), ("cancel", "7"), ("priority", "7", "1")])
@pytest.mark.parametrize("number", ["7", "9223372036854775807", "9223372036854775808", "1" + 30 * "0"])
def test_a_job_that_does_not_exist_is_wrong_usage(capsys, store, command, number):
    code, found = answer(capsys, command[0], number, *command[2:])
    assert (code, found["error_code"]) == (2, "no_such_job")


@pytest.mark.parametrize("value", ["1000", "-1000", "2147483648", "1" + 30 * "0"])
def test_a_priority_has_bounds(capsys, store, value):
    job = seen(store, "a.svs")
    code, found = answer(capsys, "priority", str(job.id), value)
    assert (code, found["error_code"]) == (2, "usage")
    assert "-999 to 999" in found["error"]
    assert store.job(job.id).priority == 0
    assert answer(capsys, "priority", str(job.id), "-999")[1]["priority"] == -999


def test_a_job_where_nothing_ever_ran_leaves_nothing_behind(capsys, here):
    code, found = answer(capsys, "job", "1")
    assert (code, found["error_code"]) == (2, "no_such_job")
    assert list(here.iterdir()) == []


def test_what_a_person_does_is_in_the_record_with_its_origin(capsys, store):
    job = seen(store, "a.svs")
    assert answer(capsys, "priority", str(job.id), "-3")[1]["priority"] == -3
    assert answer(capsys, "cancel", str(job.id))[1]["state"] == "cancelled"
    assert answer(capsys, "retry", str(job.id))[1]["state"] == "queued"
    mine = [event.kind for event in store.events(job.id) if event.origin == "person:cli"]
    assert mine == ["priority", "cancelled", "retry"]


def test_a_refused_change_is_wrong_usage(capsys, store):
    job = seen(store, "a.svs")
    store.cancel(job.id, "person:cli")
    assert answer(capsys, "cancel", str(job.id))[1]["error_code"] == "transition_refused"


@pytest.mark.parametrize("command", [("pause",), ("pause", "coffee"), ("resume",), ("db", "tidy"), ("db", "backup")])
def test_a_command_on_the_queue_makes_no_database(capsys, here, command):
    for flags in ((), ("--database", f"sqlite:///{here}/elsewhere/jobs.sqlite")):
        code, found = answer(capsys, *command, *flags)
        assert (code, found["error_code"]) == (2, "no_database")
        assert "jobs.sqlite does not exist" in found["error"]
        assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", [("retry", "1"), ("cancel", "1"), ("priority", "1", "5"), ("job", "1"), ("jobs",)])
def test_a_command_on_a_job_makes_no_database(capsys, here, command):
    call(capsys, *command)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", [("db", "upgrade"), ("db", "check")])
def test_a_newer_database_asks_for_a_newer_program(capsys, here, store, command):
    with store.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    code, found = answer(capsys, *command)
    assert (code, found["error_code"]) == (1, "database_newer")
    assert "9999" in found["error"]
    assert "Install that version" in found["error"]
    assert "db upgrade" not in found["error"]
    assert "locate" not in found["error"]


def test_pause_and_resume(capsys, store):
    assert answer(capsys, "pause", "coffee") == (0, {"paused": "coffee"})
    assert "coffee" in call(capsys, "jobs")[2]
    assert answer(capsys, "resume") == (0, {"paused": None})


# --- settings and machine -----------------------------------------------------------------------------------------


def test_config_says_where_values_came_from(capsys, here, monkeypatch):
    (here / "wsi-denoise.toml").write_text("[output]\nquality = 80\n[dashboard]\ntoken = 'secret'\n")
    monkeypatch.setenv("WSI_DENOISE_TISSUE__DILATE", "2")
    code, found = answer(capsys, "config", "--set", "output.compression=deflate", "--output", "out")
    rows = found["settings"]
    assert code == 0
    assert rows["output.quality"] == {"value": 80, "origin": str(here / "wsi-denoise.toml")}
    assert rows["tissue.dilate"] == {"value": 2, "origin": "WSI_DENOISE_TISSUE__DILATE"}
    assert rows["output.compression"] == {"value": "deflate", "origin": "flag"}
    assert rows["output.folder"] == {"value": str(here / "out"), "origin": "flag"}
    assert rows["intake.events"]["origin"] == "default"
    assert rows["dashboard.token"]["value"] == "***"


def test_a_flag_is_meant_from_here_and_the_file_from_its_folder(capsys, here):
    (here / "etc").mkdir()
    (here / "etc" / "lab.toml").write_text("[intake]\nquarantine = 'bad'\n")
    _, found = answer(capsys, "config", "--config", "etc/lab.toml", "--output", "out")
    assert found["settings"]["output.folder"]["value"] == str(here / "out")
    assert found["settings"]["intake.quarantine"]["value"] == str(here / "etc" / "bad")


@pytest.mark.parametrize("flag", ["nonsense", "output.quality=7", "no.such=1", "output.quality"])
def test_a_wrong_setting_is_wrong_usage(capsys, flag):
    code, found = answer(capsys, "config", "--set", flag)
    assert (code, found["error_code"]) == (2, "settings_invalid")


@pytest.mark.parametrize("url", ["postgresql://lab:secret@db/jobs", "postgresql:///jobs?user=lab&password=secret"])
def test_passwords_are_not_shown(capsys, url):
    secrets = {"dashboard.token": "secret", "notify.url": "https://hooks.example/secret", "jobs.database": url}
    flags = [part for name, value in secrets.items() for part in ("--set", f"{name}={value}")]
    _, found = answer(capsys, "config", *flags)
    assert all(found["settings"][name]["origin"] == "flag" for name in secrets)
    assert "secret" not in json.dumps(found)
    assert "secret" not in str(Database(url))


def test_db_check_and_upgrade(capsys, here):
    assert answer(capsys, "db", "check")[1]["error_code"] == "database_outdated"
    assert list(here.iterdir()) == []
    assert call(capsys, "db", "upgrade")[0] == 0
    assert call(capsys, "db", "check")[0] == 0


def test_an_outdated_database_is_named_and_not_touched(capsys, store):
    store.migrate("base", down=True)
    code, found = answer(capsys, "pause")
    assert (code, found["error_code"]) == (1, "database_outdated")
    assert "db upgrade" in found["error"]


def test_models_lists_the_shipped_preset(capsys):
    code, found = answer(capsys, "models")
    assert code == 0
    assert "paper" in [card["name"] for card in found["presets"]]
    assert "paper" in call(capsys, "models")[1]


@pytest.mark.parametrize("command", [("run", "a.svs"), ("watch",), ("up",)])
def test_a_preset_that_does_not_exist_is_wrong_usage(capsys, here, command):
    (here / "a.svs").write_bytes(b"x")
    code, found = answer(capsys, *command, "--preset", "nope")
    assert (code, found["error_code"]) == (2, "no_such_preset")


@pytest.mark.parametrize("command", [("run", "no.svs"), ("watch", "no"), ("up", "no"), ("verify", "no.tiff")])
def test_a_path_that_does_not_exist_is_wrong_usage(capsys, command):
    code, found = answer(capsys, *command)
    assert (code, found["error_code"]) == (2, "no_such_path")


@pytest.mark.parametrize("command", ["watch", "up"])
def test_an_inbox_that_is_a_file_or_cannot_be_made_is_wrong_usage(capsys, here, monkeypatch, command):
    (here / "inbox").write_bytes(b"")
    code, found = answer(capsys, command)
    assert (code, found["error_code"]) == (2, "usage")
    assert f"{here / 'inbox'} is not a folder" in found["error"]
    (here / "inbox").unlink()

    def refused(*_args, **_named):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    code, found = answer(capsys, command)
    assert (code, found["error_code"]) == (2, "usage")
    assert "cannot be made (Permission denied)" in found["error"]


@pytest.mark.parametrize("region", ["1,2,3", "a,b,c,d", "0,0,0,5", "-1,0,5,5"])
def test_a_wrong_region_is_wrong_usage(capsys, here, region):
    (here / "a.svs").write_bytes(b"x")
    code, found = answer(capsys, "run", "a.svs", f"--region={region}")
    assert (code, found["error_code"]) == (2, "usage")


def test_the_page_off_loopback_needs_a_token(capsys):
    code, found = answer(capsys, "dashboard", "--set", "dashboard.host=0.0.0.0")
    assert (code, found["error_code"]) == (2, "settings_invalid")
    assert "dashboard.token" in found["error"]


def test_no_command_is_wrong_usage_and_shows_help(capsys):
    code, _, err = call(capsys)
    assert code == 2
    assert "doctor" in err


def test_an_unforeseen_failure_is_no_traceback(capsys, monkeypatch, here):
    (here / ".wsi-denoise").write_text("not a folder")
    code, out, err = call(capsys, "db", "upgrade", "--json")
    assert code == 1
    assert json.loads(out)["error_code"] == "database_unreachable"

    def broken(*_args):
        raise ZeroDivisionError("by our own mistake")

    monkeypatch.setattr("wsi_denoise.network.weights.presets", broken)
    code, out, err = call(capsys, "models", "--json")
    assert (code, json.loads(out)["error_code"]) == (1, "internal_error")
    assert "Traceback" not in err
    assert Path(__file__).name in err


# --- sample -------------------------------------------------------------------------------------------------------


def test_sample_is_a_readable_pyramid_with_noise_and_mpp(capsys, here, tissue_image):
    file = demo.write(here / "inbox", side=700)
    assert [path.name for path in file.parent.iterdir()] == [demo.NAME]
    with openslide.OpenSlide(file) as slide:
        assert slide.dimensions == (700, 700)
        assert slide.level_count == 2
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.25)
    noisy = tifffile.imread(file)
    clean = demo.mirrored(tissue_image, 700)
    middle = (clean > 80) & (clean < 175)  # not clipped
    assert np.std(noisy[middle].astype(float) - clean[middle]) == pytest.approx(25, rel=0.03)
    before = file.read_bytes()
    assert answer(capsys, "sample", "inbox")[1]["path"] == str(file)
    assert file.read_bytes() == before


# --- what a command imports ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--help",), ("jobs",), ("jobs", "--json")])
def test_answers_without_the_heavy_libraries(store, arguments):
    """They take seconds to import; tests/bench/commands.py measures what an answer costs."""
    seen(store, "a.svs")
    names = "import sys; from wsi_denoise.cli import app; app.run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", names, *arguments], check=True, capture_output=True, text=True)
    assert not {name.partition(".")[0] for name in done.stderr.split()} & HEAVY


# --- signals and times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_stop(number):
    before = signal.getsignal(number)
    with serve.stopping() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.wait(1)
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_the_process():
    code = (
        "import os, signal, time\nfrom wsi_denoise.cli.serve import stopping\n"
        "with stopping():\n    print('ready', flush=True)\n    time.sleep(30)\n    time.sleep(30)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert b"stopping" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_times_are_read_as_people_write_them():
    assert moment("7d", now=NOW) == NOW - timedelta(days=7)
    assert moment("24h", now=NOW) == NOW - timedelta(hours=24)
    assert moment("2026-11-01T08:00+01:00", now=NOW) == datetime(2026, 11, 1, 7, tzinfo=UTC)
    assert moment("2026-11-01", now=NOW, end=True) - moment("2026-11-01", now=NOW) == timedelta(days=1)
    assert moment("2026-11-01", now=NOW) == datetime(2026, 11, 1).astimezone(UTC)


# --- the page's process -------------------------------------------------------------------------------------------


def test_a_page_that_dies_is_started_again_and_ends_with_the_daemon(tmp_path, monkeypatch):
    # A stand-in for the page: it notes that it was started, and dies at its first start.
    package = tmp_path / "fake" / "dashboard"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text(
        "import os, sys\nline = sys.stdin.readline()\n"
        "open('starts', 'a').write(str(os.getpid()) + ' ' + line)\n"
        "if sum(1 for _ in open('starts')) == 1:\n    sys.exit(3)\nsys.stdin.read()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setattr(dashboard, "RESTART_SECONDS", (0.05,))
    said = []
    runs = dashboard.Page(settings.load(environ={}), said.append)
    runs.start()
    starts = tmp_path / "starts"
    for _ in range(200):
        if starts.exists() and len(starts.read_text().splitlines()) == 2:
            break
        threading.Event().wait(0.05)
    runs.stop()
    first, second = (line.split(" ", 1) for line in starts.read_text().splitlines())
    assert first[0] != second[0]
    given = json.loads(second[1])
    assert given["settings"]["dashboard"]["port"] == 8501
    assert given["origins"]["dashboard.port"] == "default"
    assert len(said) == 1
    assert not Path(f"/proc/{second[0]}").exists()
