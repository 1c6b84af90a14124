"""Commands for jobs and the queue. They are fast, because they import no large libraries."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_denoise.cli import options
from wsi_denoise.cli.options import ORIGIN

if TYPE_CHECKING:
    from wsi_denoise.jobs.values import Job, JobPage

_SHOWN = 100


def _possible(number: int) -> int:
    from wsi_denoise.errors import NoSuchJob
    from wsi_denoise.jobs.values import LARGEST

    if abs(number) > LARGEST:
        raise NoSuchJob(str(number))
    return number


JobId = Annotated[int, typer.Argument(metavar="ID", help="Number of the job.", callback=_possible)]


def jobs(
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only these states; with commas, or often.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Seen since: 7d, 24h, a date.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Seen until, that day included.")] = None,
    slide: Annotated[str, typer.Option("--slide", metavar="TEXT", help="Part of the slide's path.")] = "",
    verdict: Annotated[str | None, typer.Option("--verdict", metavar="VERDICT", help="Only this verdict.")] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=0, help="Most jobs to show: 100, with --csv all; 0 for all."),
    ] = None,
    as_json: options.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
) -> None:
    """List jobs, newest first."""
    from wsi_denoise.cli import printing
    from wsi_denoise.errors import UsageError
    from wsi_denoise.jobs.query import job_query
    from wsi_denoise.jobs.store import JobStore
    from wsi_denoise.jobs.values import JobPage

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    # CSV has no default limit: a table of measurements must not silently lack rows.
    most = (0 if as_csv else _SHOWN) if limit is None else limit
    query = job_query(states=state or (), since=since, until=until, slide=slide, verdict=verdict, limit=most)
    store = JobStore(options.load(config, sets, database).settings.database_url)
    try:
        # In a folder without a database, this command must not make one.
        none_yet = options.missing(store)
        page, paused = (JobPage([], 0), None) if none_yet else (store.jobs(query), store.paused())
    finally:
        store.close()
    if as_json:
        return printing.as_json(page.to_json())
    if none_yet and not as_csv:
        print(f"There are no jobs yet: {store.file} does not exist.", file=sys.stderr)
    else:
        _print_page(page, paused, as_csv=as_csv)
    return None


def _print_page(page: JobPage, paused: str | None, *, as_csv: bool) -> None:
    from wsi_denoise.cli import printing

    total = f"{page.total} job{'' if page.total == 1 else 's'}"
    shown = total if page.total == len(page.jobs) else f"{len(page.jobs)} of {total}"
    if as_csv:
        printing.jobs_csv(page.jobs)
        if page.total != len(page.jobs):
            print(f"{shown}.", file=sys.stderr)
        return
    if page.jobs:
        printing.jobs(page.jobs)
    print(f"{shown}." + ("" if paused is None else f" The queue is paused: {printing.plain(paused)}."), file=sys.stderr)


def job(
    job_id: JobId,
    as_json: options.Json = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
) -> None:
    """Show one job with its attempts and events."""
    from wsi_denoise.cli import printing

    with options.opened(options.load(config, sets, database), make=False) as store:
        found, attempts, events = store.job(job_id), store.attempts(job_id), store.events(job_id)
    if as_json:
        return printing.as_json(
            {
                **found.to_json(),
                "attempt_list": [attempt.to_json() for attempt in attempts],
                "events": [event.to_json() for event in events],
            }
        )
    _describe(found)
    if attempts:
        print("\nAttempts")
        rows = [
            (
                a.number,
                printing.time(a.started),
                printing.time(a.ended),
                a.outcome or "running",
                a.blocks_done,
                a.error_code,
            )
            for a in attempts
        ]
        printing.table(("NO", "STARTED", "ENDED", "OUTCOME", "BLOCKS", "ERROR"), rows, right=(0, 4))
    print("\nEvents")
    printing.table(
        ("TIME", "WHO", "WHAT", "MESSAGE"), [(printing.time(e.time), e.origin, e.kind, e.message) for e in events]
    )
    return None


def _size(found: Job) -> dict[str, str]:
    facts = {}
    if found.width and found.height:
        facts["size"] = f"{found.width} x {found.height}"
        facts["mpp"] = "unknown" if found.mpp is None else " x ".join(f"{value:.4g}" for value in found.mpp)
    if found.blocks_total:
        facts["blocks"] = f"{found.blocks_done} of {found.blocks_total}, {found.blocks_resumed} resumed"
    return facts


def _describe(found: Job) -> None:
    from wsi_denoise.cli import printing
    from wsi_denoise.quality.triage import Triage

    facts = {
        "job": found.id,
        "slide": found.slide,
        "state": printing.progress(found),
        "verdict": found.verdict,
        "reasons": "; ".join(found.reasons),
        "error": f"[{found.error_code}] {found.error}" if found.error else None,
        "next try": printing.time(found.next_try),
        "preset": found.preset,
        "triage": Triage.from_json(found.triage) if found.triage else None,
        "priority": found.priority or None,
        **_size(found),
        "seen": printing.time(found.created),
        "started": printing.time(found.started),
        "finished": printing.time(found.finished),
        "output": found.output,
        "duplicate of": found.duplicate_of,
        "brought by": found.origin,
        **{f"  {key}": "-" if value is None else f"{value:.4g}" for key, value in found.metrics.items()},
    }
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    width = max(map(len, known))
    for name, value in known.items():
        print(f"{name.ljust(width)}  {printing.plain(value)}")


def retry(
    job_id: JobId,
    as_json: options.Json = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
) -> None:
    """Queue a job again, or try a waiting one now."""
    loaded = options.load(config, sets, database)
    with options.opened(loaded, make=False) as store:
        _say(store.retry(job_id, ORIGIN, inboxes=loaded.settings.intake.inbox), as_json=as_json)


def cancel(
    job_id: JobId,
    as_json: options.Json = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
) -> None:
    """Cancel a job; a running one stops at its next block."""
    with options.opened(options.load(config, sets, database), make=False) as store:
        _say(store.cancel(job_id, ORIGIN), as_json=as_json)


def priority(
    job_id: JobId,
    value: Annotated[int, typer.Argument(metavar="N", help="From -999 to 999; higher is earlier; 0 is usual.")],
    as_json: options.Json = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
) -> None:
    """Change a job's place in the queue."""
    from wsi_denoise.errors import UsageError
    from wsi_denoise.jobs.values import PRIORITIES

    if value not in PRIORITIES:
        raise UsageError(f"a priority is from {PRIORITIES[0]} to {PRIORITIES[-1]}, not {value}")
    with options.opened(options.load(config, sets, database), make=False) as store:
        _say(store.set_priority(job_id, value, ORIGIN), as_json=as_json)


def _say(found: Job, *, as_json: bool) -> None:
    from wsi_denoise.cli import printing

    if as_json:
        return printing.as_json(found.to_json())
    asked = ", asked to stop" if found.cancel_requested else ""
    print(f"job {found.id}: {found.state}{asked}, priority {found.priority}, {printing.plain(found.slide)}")
    return None


def pause(
    reason: Annotated[str, typer.Argument(metavar="[REASON]", help="Shown in the dashboard and in jobs.")] = "",
    as_json: options.Json = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
) -> None:
    """Pause the queue. Running jobs continue."""
    from wsi_denoise.cli import printing
    from wsi_denoise.daemon import notifications

    loaded = options.load(config, sets, database)
    with options.existing(loaded) as store:
        new, paused = store.pause(ORIGIN, reason), store.paused()
    if new:
        notifications.post(loaded.settings.notify.url, loaded.settings.notify.timeout, "paused", None)
    if as_json:
        return printing.as_json({"paused": paused})
    print("The queue is paused. To resume it: wsi-denoise resume")
    return None


def resume(
    as_json: options.Json = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
) -> None:
    """Resume the queue."""
    from wsi_denoise.cli import printing

    with options.existing(options.load(config, sets, database)) as store:
        lifted, paused = store.resume(ORIGIN), store.paused()
    if as_json:
        return printing.as_json({"paused": paused})
    print("The queue is resumed." if lifted else "The queue was not paused.")
    return None
