"""Settings, daemons and checks of the System page."""

import re
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from dashboard.pages import system
from support.jobs import DAEMON, NOW
from wsi_denoise import settings
from wsi_denoise.doctor import Check
from wsi_denoise.network import weights


def test_secrets_are_not_shown():
    secrets = {
        "dashboard.token": "secret-1", "notify.url": "https://x/secret-2", "jobs.database": "postgresql://u:secret-3@h/d",
    }  # fmt: skip
    loaded = settings.load(environ={}, overrides=secrets)
    text = system.settings(loaded.settings, loaded.origins)
    assert "secret" not in re.sub("Secret that|a secret", "", text)
    assert text.count("<strong><bdi>flag") == 3
    assert system.settings(loaded.settings, loaded.origins, changed_only=True).count("<tr>") == 4


def test_a_daemon_says_when_it_was_last_heard_of():
    given = settings.load(environ={}, folder=Path("/lab")).settings

    def row(silent, **changed):
        heard = NOW - timedelta(seconds=silent)
        return system.daemons([replace(DAEMON, heartbeat=heard, **changed)], NOW, given)

    assert "alive</span>" in row(4, jobs=[7])
    assert 'href="/history?job=7"' in row(4, jobs=[7])
    assert "4 s ago" in row(4)
    assert "lost</span>" in row(700)
    assert "1 h ahead of this clock" in row(-3600)
    assert "stopped</span>" in row(700, stopped=NOW)


def wait_for(doctor):
    for _ in range(300):
        if doctor.findings:
            return doctor.findings
        threading.Event().wait(0.1)
    raise AssertionError("the doctor found nothing")


def test_the_doctor_runs_once_at_a_time_and_no_page_waits():
    started, may_end, runs = threading.Event(), threading.Event(), []

    def examine():
        runs.append(1)
        started.set()
        may_end.wait(30)
        return [Check("<b>", "warning", "paused: lunch; wsi-denoise resume"), Check("disk", "broken", "x")]

    doctor = system.Doctor(examine)
    doctor.start()
    doctor.start()
    assert started.wait(30)
    assert doctor.busy
    assert doctor.findings is None
    may_end.set()
    shown = system.checks(wait_for(doctor).checks)
    assert runs == [1]
    assert shown.index("disk") < shown.index("&lt;b&gt;")
    assert "wsi-denoise" not in shown
    assert "the button Resume on the Queue page" in shown
    failing = system.Doctor(lambda: 1 / 0)
    failing.start()
    assert "ZeroDivisionError" in wait_for(failing).error


def test_a_card_shows_its_measurements_and_the_nuclei_that_are_found():
    card = replace(weights.card("paper"), nuclei=(weights.Nuclei("white <10>", 14, 186, 185, 183, 0.94, 0.95, 3, 4),))
    text = system.model(card)
    assert text.count("<tr>") >= len(card.measured) + 2
    assert "white &lt;10&gt;" in text
    assert "4 of 14" in text
    assert "Nuclei" not in system.model(replace(card, nuclei=()))
