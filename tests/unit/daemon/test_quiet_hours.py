"""Quiet hours: when they are, and the pause that they make."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_denoise.daemon import quiet_hours
from wsi_denoise.daemon.quiet_hours import Quiet, until
from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.jobs.store import JobStore
from wsi_denoise.settings import Settings

MONDAY = datetime(2026, 11, 23)  # noqa: DTZ001 - the time on the wall, as all of them here


@pytest.mark.parametrize(
    ("text", "day", "clock", "end"),
    [
        ("08:00-18:00", 0, "07:59", None),
        ("08:00-18:00", 0, "08:00", "Mon 18:00"),
        ("08:00-18:00", 6, "17:59", "Sun 18:00"),
        ("08:00-18:00", 0, "18:00", None),
        ("22:00-06:00", 0, "23:00", "Tue 06:00"),
        ("22:00-06:00", 1, "05:59", "Tue 06:00"),
        ("Mon-Fri 8:00-18:00", 4, "12:00", "Fri 18:00"),
        ("Mon-Fri 8:00-18:00", 5, "12:00", None),
        ("Fri 22:00-06:00", 5, "03:00", "Sat 06:00"),
        ("Fri 22:00-06:00", 4, "03:00", None),
        ("Sat-Mon 00:00-00:00", 0, "12:00", "Tue 00:00"),
        ("mon-fri 08:00-12:00, sat 09:00-12:00", 5, "09:30", "Sat 12:00"),
        ("08:00-12:00, 11:00-14:00", 0, "11:30", "Mon 14:00"),
        ("", 0, "12:00", None),
    ],
)
def test_quiet_hours_end_when_they_say(text, day, clock, end):
    hour, minute = map(int, clock.split(":"))
    found = until(text, MONDAY + timedelta(days=day, hours=hour, minutes=minute))
    assert (f"{found:%a %H:%M}" if found else None) == end
    assert Settings().with_values({"compute.quiet_hours": text}).compute.quiet_hours == text


@pytest.mark.parametrize("text", ["8-18", "25:00-26:00", "Mon", "Mun 08:00-09:00", "08:00-09:00;", "08:00-09:00,"])
def test_what_is_no_time_of_the_day_is_refused(text):
    with pytest.raises(SettingsInvalid, match="quiet_hours"):
        Settings().with_values({"compute.quiet_hours": text})


@given(st.datetimes(MONDAY, MONDAY + timedelta(days=400)))
def test_the_end_is_never_in_the_past_and_at_most_a_day_ahead(now):
    for text in ("22:00-06:00", "Mon-Fri 08:00-18:00", "00:00-00:00"):
        end = until(text, now)
        assert end is None or now < end <= now + timedelta(days=1)


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    clock = {"wall": MONDAY + timedelta(hours=7), "seconds": 0.0}
    monkeypatch.setattr(quiet_hours.time, "monotonic", lambda: clock["seconds"])
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    store.upgrade()
    made = Quiet(store, store.register_daemon(), "08:00-18:00", wall=lambda: clock["wall"])
    made.store, made.clock = store, clock
    yield made
    store.close()


def test_the_queue_is_paused_with_the_reason_and_goes_on_by_itself(quiet):
    assert not quiet.look()
    assert not quiet.now()
    quiet.clock["wall"] = MONDAY + timedelta(hours=8)
    assert quiet.now()  # a running slide is given back, without asking any database
    assert quiet.look()
    assert quiet.store.paused() == "quiet hours until 18:00 (compute.quiet_hours)"
    quiet.clock["wall"] = MONDAY + timedelta(hours=18)
    assert not quiet.look()
    assert quiet.store.paused() is None
    assert not quiet.now()


def test_a_person_may_lift_them_for_today(quiet):
    quiet.clock["wall"] = MONDAY + timedelta(hours=9)
    assert quiet.look()
    quiet.store.resume("person:page")
    quiet.clock["seconds"] = 100.0
    assert not quiet.look()
    assert not quiet.now()
    assert not quiet.look()
    quiet.clock["wall"] = MONDAY + timedelta(hours=19)
    assert not quiet.look()
    quiet.clock["wall"] = MONDAY + timedelta(days=1, hours=9)
    assert quiet.look()


def test_another_pause_is_not_touched(quiet):
    quiet.store.pause("person:page", "maintenance")
    quiet.clock["wall"] = MONDAY + timedelta(hours=9)
    assert quiet.look()
    quiet.clock["wall"] = MONDAY + timedelta(hours=19)
    assert not quiet.look()
    assert quiet.store.paused() == "maintenance"
