"""Whatever is asked of the store in whatever order: only allowed transitions, each with its event."""

import os
import re
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from support.stores import open_store
from wsi_denoise.errors import DiskFull, LeaseLost, NotASlide, SlideChanged, TransitionRefused, WorkerLost
from wsi_denoise.jobs.states import ALLOWED, OVER, JobState


def documented_section(heading):
    """First column of the table in docs/programs/json.md whose first heading is this."""
    text = (Path(__file__).parents[2] / "docs" / "programs" / "json.md").read_text("utf-8")
    rows = text.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return "\n".join(row.split("|")[1] for row in rows)


PATHS = st.sampled_from(["/inbox/a.svs", "/inbox/b.svs", "/inbox/c.svs"])
CONTENTS = st.sampled_from(["x", "y"])
DAEMONS = st.integers(1, 2)
JOBS = st.integers(1, 8)
REGIONS = st.sampled_from([None, (0, 0, 9, 9)])
ORIGINS = st.sampled_from(["daemon:1", "daemon:2", "person:cli"])

DOCUMENTED = set(re.findall(r"`(\w+)`", documented_section("kind")))


class Machine(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.ends = ExitStack()
        folder = self.ends.enter_context(tempfile.TemporaryDirectory())
        self.store = self.ends.enter_context(open_store(f"sqlite:///{folder}/jobs.sqlite", lambda: self.now))

    @initialize()
    def register(self):
        assert [self.store.register_daemon(), self.store.register_daemon()] == [1, 2]

    def teardown(self):
        self.ends.close()

    def attempt(self, call, *arguments, **named):
        """Ask; what is refused must have changed nothing."""
        before = self.everything()
        try:
            return call(*arguments, **named)
        except (TransitionRefused, LeaseLost):
            assert self.everything() == before
            return None

    def everything(self):
        return self.store.jobs().jobs, self.store.events()

    def some(self, job):
        """Map a number between 1 and 8 to a job; None without jobs."""
        count = self.store.jobs().total
        return (job - 1) % count + 1 if count else None

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule(path=PATHS, size=st.integers(1, 3), region=REGIONS)
    def see(self, path, size, region):
        stat = {"size_bytes": size, "mtime_ns": size}
        job = self.store.see(path, path[7:], **stat, preset="paper", origin="daemon:1", region=region)
        assert job.state is JobState.SETTLING

    @rule(path=PATHS, content=CONTENTS, preset=st.sampled_from(["paper", "scanner"]), region=REGIONS)
    def see_and_queue(self, path, content, preset, region):
        given = {"preset": preset, "origin": "daemon:1", "region": region}
        job = self.store.see(path, path[7:], size_bytes=1, mtime_ns=1, **given)
        self.store.queue(job.id, fingerprint=content, settings={}, settings_hash="s", **given)

    @rule(job=JOBS, content=CONTENTS)
    def queue(self, job, content):
        if job := self.some(job):
            given = {"fingerprint": content, "settings": {}, "settings_hash": "s", "preset": "paper"}
            given["region"] = self.store.job(job).region
            self.attempt(self.store.queue, job, **given, origin="daemon:2")

    @rule(job=JOBS, call=st.sampled_from(["forget", "update_seen"]))
    def settle(self, job, call):
        if job := self.some(job):
            self.attempt(getattr(self.store, call), job, *(["gone"] if call == "forget" else [5, 5]))

    @rule(target=leases, daemon=DAEMONS)
    def claim(self, daemon):
        job = self.store.claim(daemon, 60)
        if job is None:
            return (daemon, 1)
        assert self.store.paused() is None
        assert (job.state, job.daemon) == (JobState.RUNNING, daemon)
        return (daemon, job.id)

    @rule(lease=leases, seconds=st.sampled_from([0, 60]))
    def heartbeat(self, lease, seconds):
        daemon, job = lease
        if self.store.jobs().total:
            found = self.store.job(job)
            held = found.state is JobState.RUNNING and found.daemon == daemon
            assert self.store.heartbeat(daemon, job, seconds) == held

    @rule(lease=leases, call=st.sampled_from(["progress", "set_slide_facts", "cancelled", "release"]))
    def work(self, lease, call):
        daemon, job = lease
        arguments = {"progress": [daemon, 1, 4], "set_slide_facts": [9, 9, None], "cancelled": [daemon]}
        if self.some(job):
            self.attempt(getattr(self.store, call), job, *arguments.get(call, [daemon, "shutdown"]))

    @rule(lease=consumes(leases))
    def finish(self, lease):
        daemon, job = lease
        if self.some(job):
            given = {"verdict": "pass", "reasons": [], "metrics": {"a": 1.0}, "output": "/o", "output_sha256": "0"}
            self.attempt(self.store.finish, job, daemon, **given)

    @rule(job=JOBS, origin=ORIGINS, call=st.sampled_from(["quarantine", "fail", "settle_again", "retry_later"]))
    def end(self, job, origin, call):
        errors = {"quarantine": NotASlide(), "fail": WorkerLost(), "settle_again": SlideChanged()}
        if job := self.some(job):
            later = [DiskFull(), self.now + timedelta(seconds=30)] if call == "retry_later" else [errors[call]]
            self.attempt(getattr(self.store, call), job, *later, origin)

    @rule(job=JOBS, call=st.sampled_from(["cancel", "retry"]))
    def person(self, job, call):
        if job := self.some(job):
            self.attempt(getattr(self.store, call), job, "person:cli")

    @rule(job=JOBS, priority=st.integers(-2, 2))
    def set_priority(self, job, priority):
        if job := self.some(job):
            self.attempt(self.store.set_priority, job, priority, "person:cli")

    @rule(origin=ORIGINS, call=st.sampled_from(["pause", "resume"]))
    def queue_as_a_whole(self, origin, call):
        getattr(self.store, call)(origin)

    @rule(daemon=DAEMONS)
    def stop(self, daemon):
        self.store.stop_daemon(daemon)

    @invariant()
    def every_change_is_allowed_and_recorded(self):
        changes = [event for event in self.store.events() if "to" in event.data]
        assert {event.kind for event in self.store.events()} <= DOCUMENTED
        for job in self.store.jobs().jobs:
            state = None
            for event in changes:
                if event.job_id != job.id:
                    continue
                old, new = event.data.get("from"), event.data["to"]
                assert old == state, "a change between these two events was not recorded"
                assert state is None or JobState(new) in ALLOWED[JobState(old)]
                state = new
            assert job.state == state, "the last change was not recorded"

    @invariant()
    def what_a_state_means(self):
        for job in self.store.jobs().jobs:
            running = job.state is JobState.RUNNING
            attempts = self.store.attempts(job.id)
            assert (job.daemon is not None) == running
            assert sum(attempt.ended is None for attempt in attempts) == running
            assert (job.finished is not None) == (job.state in OVER)
            assert running or not job.cancel_requested
            assert job.next_try is None or job.state is JobState.QUEUED
            assert (job.duplicate_of is not None) == (job.state is JobState.DUPLICATE)
            assert 0 <= job.attempts <= len(attempts)
            assert job.fingerprint or job.state not in {JobState.QUEUED, JobState.RUNNING, JobState.DONE}

    @invariant()
    def the_same_work_is_not_done_twice(self):
        under_way = [job for job in self.store.jobs().jobs if job.state in {JobState.QUEUED, JobState.RUNNING}]
        assert len({(job.fingerprint, job.preset, job.region) for job in under_way}) == len(under_way)

    @invariant()
    def a_path_settles_once(self):
        settling = [(job.slide, job.region) for job in self.store.jobs().jobs if job.state is JobState.SETTLING]
        assert len(set(settling)) == len(settling)
        known = self.store.known()
        whole = [path for path, region in settling if region is None]
        assert all(known[path].state is JobState.SETTLING for path in whole), "the scan would not see it"


# WSI_DENOISE_TEST_EXAMPLES=500 takes minutes, and such a run has found what 25 did not.
Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("WSI_DENOISE_TEST_EXAMPLES", "25")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase
