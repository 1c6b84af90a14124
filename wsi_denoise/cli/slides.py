"""Commands for slides: ``run``, ``verify``, ``sample`` and ``bench``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_denoise.cli import options

if TYPE_CHECKING:
    from wsi_denoise.intake.arguments import Found
    from wsi_denoise.jobs.not_run import NotRun
    from wsi_denoise.jobs.store import JobStore
    from wsi_denoise.jobs.values import Job
    from wsi_denoise.settings import Loaded, Settings
    from wsi_denoise.slide.verify import Verification


def run(
    slides: Annotated[list[Path], typer.Argument(metavar="SLIDE...", help="Slides, or folders of them.")],
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="X,Y,W,H", help="Only this part, in pixels of level 0, as a trial."),
    ] = None,
    triage: Annotated[
        bool, typer.Option("--triage", help="Only print whether each slide needs denoising, and with which preset.")
    ] = False,
    output: options.Output = None,
    preset: options.Preset = None,
    scheduler: options.Scheduler = None,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> int:
    """Denoise slides now, in the foreground.

    Jobs go to the same database as the daemon's.
    """
    part = _region(region)
    loaded = options.load(config, sets, database, output=output, preset=preset, scheduler=scheduler)
    from wsi_denoise.jobs.not_run import NotRun
    from wsi_denoise.network import candidates

    for name in loaded.settings.presets:
        candidates.cards(name)
    found = _slides_of(slides, loaded.settings)
    if triage:
        from wsi_denoise.cli import triage as decisions

        return decisions.show(found, loaded.settings, part, as_json=as_json)
    paths = [each.path for each in found if each.error is None]
    results, places = _denoise(paths, loaded, part) if paths else ([], {})
    remaining = iter(results)
    ended = [next(remaining) if each.error is None else NotRun(str(each.path), each.error) for each in found]
    return _conclude(ended, places, as_json=as_json)


def _denoise(
    paths: list[Path], loaded: Loaded, part: tuple[int, int, int, int] | None
) -> tuple[Sequence[Job | NotRun], dict[int | None, str]]:
    """Run slides; return the result of each, and where the outputs of the originals of duplicates are."""
    from wsi_denoise.errors import WsiDenoiseError
    from wsi_denoise.jobs.not_run import NotRun
    from wsi_denoise.system import logs

    try:
        logs.setup(loaded.settings, "run", console=False)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with options.opened(loaded, upgrade=True) as store, _reporting() as report:
            from wsi_denoise.daemon.foreground import run_slides
            from wsi_denoise.jobs import outputs

            results = run_slides(paths, loaded, store, region=part, report=report, say=_say)
            firsts = {each.duplicate_of for each in results if not isinstance(each, NotRun)}
            return results, {first: outputs.whereabouts(store, store.job(first)) for first in firsts if first}
    except WsiDenoiseError as error:  # for example a missing database: every slide is listed with this reason
        return [NotRun(str(path), error) for path in paths], {}


def _slides_of(arguments: Sequence[Path], settings: Settings) -> list[Found]:
    """Return the slides of the arguments, and an error for each argument without slides."""
    from wsi_denoise.intake.arguments import slides_of

    intake = settings.intake
    own = (intake.quarantine, settings.output.folder, settings.jobs.state)
    return [
        found
        for argument in arguments
        for found in slides_of(argument.absolute(), intake.ignore, own, ignore_system=intake.ignore_system)
    ]


def _conclude(ended: Sequence[Job | NotRun], places: Mapping[int | None, str], *, as_json: bool) -> int:
    """Print the result of every slide, and return the exit code."""
    from wsi_denoise.cli import printing
    from wsi_denoise.jobs.not_run import NotRun

    unstarted = [each.failure for each in ended if isinstance(each, NotRun)]
    if as_json:
        nothing_run = len(unstarted) == len(ended)
        top = {"error_code": unstarted[0].code, "error": str(unstarted[0])} if nothing_run else {}
        printing.as_json({"jobs": [each.to_json() for each in ended], "total": len(ended), **top})
    for each in ended:
        if isinstance(each, NotRun):
            printing.tell(f"wsi-denoise: {printing.plain(each.error)}")
        elif not as_json:
            _print_job(each, places.get(each.duplicate_of))
    return _exit_code(ended)


def _exit_code(ended: Sequence[Job | NotRun]) -> int:
    from wsi_denoise.errors import RegionOutside, UsageError
    from wsi_denoise.jobs.not_run import NotRun

    if all(isinstance(each, NotRun) and isinstance(each.failure, UsageError) for each in ended):
        return 2
    if any(each.error_code == RegionOutside.code for each in ended):
        return 2
    return 0 if all(each.state in {"done", "duplicate"} for each in ended) else 1


def _say(text: str) -> None:
    from wsi_denoise.cli import printing

    printing.tell(printing.plain(text))


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    from wsi_denoise.errors import UsageError

    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--region {text}: it is x,y,width,height in whole pixels of level 0") from None
    if min(x, y) < 0 or min(width, height) < 1:
        raise UsageError(f"--region {text}: x and y are at least 0, width and height at least 1")
    return x, y, width, height


def _print_job(job: Job, output_of_first: str | None) -> None:
    from wsi_denoise.cli import printing

    reasons = f" ({'; '.join(job.reasons)})" if job.reasons else ""
    text = {
        "done": f"{job.verdict or 'done'}{reasons}: {job.output}",
        "duplicate": f"nothing to do, the same as job {job.duplicate_of}; {output_of_first}",
    }.get(job.state, f"{job.state}: {job.error or 'see wsi-denoise job'}")
    print(f"job {job.id}: {printing.plain(Path(job.slide).name)}: {printing.plain(text)}")


@contextmanager
def _reporting() -> Iterator[Callable[[Job], None]]:
    """Yield a function that reports the progress of a job: as a bar on a terminal, else as lines."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    tasks: dict[int, TaskID] = {}
    with Progress(
        *columns, TextColumn("{task.fields[facts]}"), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bars:

        def report(job: Job) -> None:
            if job.id not in tasks:
                tasks[job.id] = bars.add_task(_name(job), total=1.0, facts="")
            bars.update(tasks[job.id], completed=job.progress, facts=_facts(job))

        yield report


class _Lines:
    """A report of a job's progress with one line per change of state and per 10 %."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[str, int]] = {}

    def __call__(self, job: Job) -> None:
        from wsi_denoise.cli import printing

        now = (job.state.value, int(job.progress * 10))
        if self._said.get(job.id) != now:
            self._said[job.id] = now
            printing.tell(f"{_name(job)}: {job.progress:.0%} {_facts(job)}".rstrip())


def _name(job: Job) -> str:
    from wsi_denoise.cli import printing

    return printing.plain(Path(job.slide).name)


def _facts(job: Job) -> str:
    if job.state != "running":
        return job.state.value
    parts = [f"{job.blocks_done}/{job.blocks_total} blocks"] if job.blocks_total else []
    if job.rate:
        parts.append(f"{job.rate:.2f} MPix/s")
    if job.seconds_left is not None:
        minutes, seconds = divmod(round(job.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(parts)


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TIFF that wsi-denoise wrote.")],
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> int:
    """Check an output and its original against the database."""
    from wsi_denoise.cli import printing
    from wsi_denoise.errors import NoSuchPath
    from wsi_denoise.jobs.store import JobStore

    if not file.is_file():
        raise NoSuchPath(printing.plain(file))
    store = JobStore(options.load(config, sets, database).settings.database_url)
    try:
        job = None if options.missing(store) else job_of(store, file)
    finally:
        store.close()
    from wsi_denoise.intake.fingerprint import fingerprint
    from wsi_denoise.slide.verify import verify_file

    found = verify_file(file, job, source_fingerprint=fingerprint)
    if job is not None and job.output is not None and Path(job.output).resolve() != file.resolve():
        found.add("place", f"the store has it at {job.output}", holds=True)
    _print_checks(file, found, job, as_json=as_json)
    return 0 if found.ok else 1


def _print_checks(file: Path, found: Verification, job: Job | None, *, as_json: bool) -> None:
    from wsi_denoise.cli import printing

    if as_json:
        checks = [{"name": name, "ok": ok, "text": text} for name, ok, text in found.checks]
        printing.as_json(
            {"file": str(file.absolute()), "ok": found.ok, "job": job.id if job else None, "checks": checks}
        )
    else:
        printing.table(
            ("", "CHECK", "FOUND"), [("ok" if ok else "WRONG", name, text) for name, ok, text in found.checks]
        )
        print("verified" if found.ok else "NOT verified", file=sys.stderr)


def job_of(store: JobStore, file: Path) -> Job | None:
    """Return the newest done job that wrote a file, wherever the file is now."""
    from wsi_denoise.jobs import outputs
    from wsi_denoise.jobs.states import JobState
    from wsi_denoise.jobs.values import JobQuery
    from wsi_denoise.slide.verify import sha256

    place, at_place = file.resolve(), None
    try:
        digest = sha256(file)
    except OSError:
        digest = ""  # the checks report why it cannot be read
    # Outputs are named after their slide. All jobs are searched only for a renamed one.
    for part in (file.name.split(".denoised")[0].split(".trial")[0], ""):
        page = store.jobs(JobQuery(states=(JobState.DONE,), slide=part, limit=None, sort="-id"))
        at_place = next((job for job in page.jobs if job.output and Path(job.output).resolve() == place), None)
        if at_place is not None:
            break
    if at_place is not None and at_place.output_sha256 == digest:
        return at_place
    # The output may have been moved, even to the path of another one.
    return outputs.with_checksum(store, digest) or at_place


def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it, such as inbox.")],
    as_json: options.Json = False,
) -> None:
    """Write a demo slide with noise of known strength."""
    from wsi_denoise.cli import printing
    from wsi_denoise.slide import demo

    made = demo.write(folder)
    if as_json:
        printing.as_json({"path": str(made.absolute()), "sigma": demo.SIGMA, "mpp": demo.MPP})
    else:
        print(made)


def bench(
    slide: Annotated[Path | None, typer.Argument(metavar="[SLIDE]", help="Your own; the demo slide otherwise.")] = None,
    preset: options.Preset = None,
    scheduler: options.Scheduler = None,
    config: options.Config = None,
    sets: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Measure the speed of this machine.

    The stages are reading, network, encoding, and a slide from start to end.
    """
    from wsi_denoise.cli import printing
    from wsi_denoise.errors import NoSuchPath
    from wsi_denoise.network import candidates

    loaded = options.load(config, sets, preset=preset, scheduler=scheduler)
    if slide is not None and not slide.exists():
        raise NoSuchPath(printing.plain(slide))
    candidates.cards(loaded.settings.model.preset)
    from wsi_denoise.processing import bench as measuring

    stages = []
    for stage, value, unit in measuring.run(loaded, slide.absolute() if slide else None):
        stages.append({"stage": stage, "value": value, "unit": unit})
        if not as_json:
            print(f"{stage:<28}{value:>10.2f} {unit}", flush=True)
    if as_json:
        printing.as_json({"stages": stages})
