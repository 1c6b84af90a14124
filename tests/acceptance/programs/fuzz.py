"""Damaged slides by the thousand: does every one end as done or with a coded reason, in time, in bounded memory?

Two forms. ``path`` sends each case through what a daemon's worker does with a slide (intake's look, probe,
fingerprint, plan, blocks, assembling, verification) in a process of its own, with a network that changes nothing.
``daemon`` puts the cases into the inbox of a real daemon, with the real network. Both are drawn from a seed; the
results file keeps every case, so that an interrupted run continues, and runs add up.

    python tests/acceptance/programs/fuzz.py path --cases 1000 --results fuzz.json
    python tests/acceptance/programs/fuzz.py daemon --cases 1000 --results fuzz.json
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SLIDES = Path(os.environ.get("WSI_DENOISE_SHARED", HERE.parents[3] / "shared")) / "data" / "slides"
OPEN_SECONDS, CASE_SECONDS = 60.0, 300.0
"""Limits of opening a file, and of a case from its first look to its end, in seconds of a machine that is shared."""

MOST_BLOCKS = 24
"""Of a slide that declares more (and has them), so many blocks are done and the rest is taken on trust."""

WARM = 20
"""Cases after which a process has imported and cached what it will; memory is compared with that."""

UNEXPLAINED = ("internal_error", "error", "timeout", "died", "traceback", "unexplained", "wrong")


def sibling(name: str) -> Any:
    """Import another file of this folder, which is not a package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


# -- in a worker process: the path of a slide


class _Same:
    """A network that changes nothing: what matters here is before and after it."""

    def denoise(self, windows: Any, *, fitted: bool = False) -> Any:
        return windows


def path_of(file: Path, state: Path) -> tuple[str, str]:
    """Send one file through everything, and return (outcome, detail)."""
    from wsi_denoise.errors import WsiDenoiseError
    from wsi_denoise.intake import files, watcher
    from wsi_denoise.intake.fingerprint import fingerprint
    from wsi_denoise.processing import block
    from wsi_denoise.processing.assemble import assemble, verify
    from wsi_denoise.processing.dask import remote
    from wsi_denoise.processing.plan import plan_slide
    from wsi_denoise.settings import Settings
    from wsi_denoise.slide import reader

    found = [each for each in files.slides_under(file.parent, [".*"]) if each.path == file or file in each.path.parents]
    if not found:
        return "unexplained", "intake does not see it"
    candidate = found[0]
    if candidate.kind is not files.Kind.SLIDE:
        return candidate.kind.value, candidate.reason or str(candidate.problem)
    # Fluorescence is refused by its look, which would keep its damage from the rest.
    mode = "all" if ".ndpi" in file.name else "auto"
    settings = Settings().with_values({"tissue.mode": mode, "output.quality": 75})
    try:
        trouble = watcher._outside_fault(candidate) or remote.probe(candidate.path, settings.limits.megapixels)
        if trouble is not None:
            raise trouble
        content = fingerprint(candidate.path, expected=candidate.snapshot)
        plan = plan_slide(candidate.path, content, settings, "paper", state / "spool")
        slide = reader.open_cached(candidate.path, max_megapixels=settings.limits.megapixels)
        todo = list(plan.work.lattice.blocks())
        step = max(1, len(todo) // MOST_BLOCKS)
        for index in todo[::step]:
            tissue = plan.tissue[plan.work.lattice.patches(index)]
            block.run_block(plan.work, index, tissue, slide.read, _Same())
        if step == 1:
            part = state / "out.part"
            assemble(plan, part, state / "maps.npz")
            verify(plan, part, 8)
    except WsiDenoiseError as error:
        return error.code, str(error)
    return "done", f"{plan.info.reader}, {plan.info.width} x {plan.info.height}"


def worker() -> None:
    """Take paths on standard input, one JSON a line, and give outcomes."""
    import logging
    import warnings

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not spoil the answers
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        file = Path(json.loads(line))
        state = Path(tempfile.mkdtemp(prefix="state", dir=file.parents[1]))
        begun = time.monotonic()
        try:
            outcome, detail = path_of(file, state)
        except Exception as error:  # noqa: BLE001 - the program searches for unforeseen errors
            import traceback

            outcome, detail = "traceback", f"{type(error).__name__}: {error}\n{traceback.format_exc()[-2500:]}"
        finally:
            shutil.rmtree(state, ignore_errors=True)
        answer = {
            "outcome": outcome,
            "detail": detail[:3000],
            "seconds": round(time.monotonic() - begun, 2),
            "rss_mb": _rss_mb(),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        answers.write(json.dumps(answer) + "\n")


def _rss_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


class Worker:
    """The process that cases run in; started again when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.cases = 0

    def run(self, file: Path) -> dict[str, Any]:
        """Return what became of a file, whatever that is."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # The second as Dask sets it for its workers: memory goes back to the system.
                env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "65536"},
            )
            self.cases = 0
        self.cases += 1
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(str(file)) + "\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], CASE_SECONDS)
        line = process.stdout.readline() if ready else ""
        if line:
            return {**json.loads(line), "age": self.cases}
        self.close()
        code = process.returncode
        return {"outcome": "died" if ready else "timeout", "detail": f"exit code {code}", "seconds": CASE_SECONDS}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def by_path(todo: list[int], seed: int, folder: Path, record: Callable[[int, dict[str, Any]], None]) -> None:
    """Send cases through worker processes, one after the other."""
    mutations = sibling("mutations")
    runner = Worker()
    try:
        for number in todo:
            place = folder / f"case{number}"
            place.mkdir()
            case = mutations.make(SLIDES, seed, number, place)
            record(number, {"specimen": case.specimen, "mutation": case.mutation, **runner.run(case.path)})
            shutil.rmtree(folder)
            folder.mkdir()
    finally:
        runner.close()


# -- through a real daemon


def by_daemon(
    todo: list[int],
    seed: int,
    folder: Path,
    record: Callable[[int, dict[str, Any]], None],
    *,
    batch: int = 20,
    end: float = float("inf"),
) -> dict[str, Any]:
    """Put cases into the inbox of a daemon, some at a time, and wait until nothing is left to explain.

    After `end` (on the monotonic clock) no further ones are put in.
    """
    from wsi_denoise.jobs.states import OVER

    mutations = sibling("mutations")
    place = sibling("common").Workplace(
        folder / "lab",
        {
            "intake": {"settle_seconds": 1.0, "scan_seconds": 0.5, "grace_seconds": 4.0},
            "jobs": {"heartbeat_seconds": 2.0, "retry_seconds": 1.0, "attempts": 2},
            "limits": {"open_seconds": OPEN_SECONDS, "worker_memory": "3GiB", "free_gigabytes": 0.1},
            "output": {"quality": 75},
        },
        variables={"OMP_NUM_THREADS": "1"},
    )
    place.start()
    memory: list[dict[str, int]] = []
    try:
        for start in range(0, len(todo), batch):
            if time.monotonic() > end:
                break
            cases = [mutations.make(SLIDES, seed, number, place.inbox) for number in todo[start : start + batch]]
            begun = time.monotonic()
            ended: dict[str, Any] = {}
            while len(ended) < len(cases) and time.monotonic() - begun < CASE_SECONDS * batch:
                assert place.running, f"exit code {place.process.returncode}\n{place.report()}"
                time.sleep(0.5)
                newest = {job.relative: job for job in place.jobs()}
                log = _log_of(place)
                for case in cases:
                    job = newest.get(case.path.name) or next(
                        (job for name, job in newest.items() if name.startswith(f"{case.path.name}/")), None
                    )
                    if job is not None and job.state in OVER:
                        ended[case.path.name] = _ended(place, job, start)
                    elif job is None and f"not a slide: {case.path.name}" in log:
                        ended[case.path.name] = {"outcome": "other", "detail": "said in the log", "seconds": 0}
            for case in cases:
                answer = ended.get(case.path.name, {"outcome": "unexplained", "detail": place.report(), "seconds": 0})
                record(case.number, {"specimen": case.specimen, "mutation": case.mutation, **answer})
                shutil.rmtree(case.path) if case.path.is_dir() else case.path.unlink()
            memory.append({"after": start + len(cases), **_memory(place)})
            shutil.rmtree(place.output, ignore_errors=True)
        left = [str(file) for file in (place.folder / ".wsi-denoise/spool").glob("*")]
        log = _log_of(place)
        alive = place.running
        code = place.terminate()
        return {"alive": alive, "exit": code, "memory": memory, "spool": left, "tracebacks": log.count("Traceback")}
    finally:
        place.close()


def _log_of(place: Any) -> str:
    file = place.folder / ".wsi-denoise/logs/daemon.log"
    return file.read_text("utf-8", "replace") if file.exists() else ""


def _ended(place: Any, job: Any, _start: int) -> dict[str, Any]:
    from wsi_denoise.intake.fingerprint import fingerprint
    from wsi_denoise.slide.verify import verify_file

    begun = job.started or job.created
    seconds = round((job.finished - begun).total_seconds(), 1)
    answer = {"outcome": job.error_code or job.state.value, "detail": job.error or "", "seconds": seconds}
    if job.state == "done" and not verify_file(Path(job.output), job, source_fingerprint=fingerprint).ok:
        answer["outcome"] = "wrong"
    return answer


def _memory(place: Any) -> dict[str, int]:
    """Return megabytes of private and shared memory in proportion, and open files and threads, of all its processes."""
    pss = files = threads = 0
    for process in place.processes():
        with contextlib.suppress(Exception):  # the process may have ended
            pss += process.memory_full_info().pss
            files += process.num_fds()
            threads += process.num_threads()
    return {"pss_mb": pss // 2**20, "files": files, "threads": threads}


# -- results


def load(results: Path) -> dict[str, Any]:
    """Return the results so far."""
    if results.exists():
        found: dict[str, Any] = json.loads(results.read_text())
        return found
    return {"cases": {}, "runs": []}


def save(results: Path, known: dict[str, Any]) -> None:
    """Write the results, whole or not at all."""
    part = results.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1))
    part.replace(results)


def summary(known: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = []
    for form in ("path", "daemon"):
        cases = [case for key, case in known["cases"].items() if key.startswith(f"{form}:")]
        if not cases:
            continue
        outcomes = Counter(case["outcome"] for case in cases)
        bad = [case for case in cases if case["outcome"] in UNEXPLAINED]
        slow = max(case["seconds"] for case in cases)
        real = len({case["specimen"] for case in cases})
        lines += [
            f"{form}: {len(cases)} damaged slides of {real} real ones; slowest {slow:.0f} s",
            "  " + ", ".join(f"{name} {count}" for name, count in outcomes.most_common()),
            f"  not explained: {len(bad)}",
        ]
        lines += [
            f"    {case['specimen']} {case['mutation']}: {case['outcome']} {case['detail'][-300:]}" for case in bad
        ]
        ages = [(case["age"], case["rss_mb"]) for case in cases if "rss_mb" in case and case["age"] >= WARM]
        if ages:
            early = [rss for age, rss in ages if age < 2 * WARM]
            late = [rss for age, rss in ages if age > max(age for age, _ in ages) - WARM]
            peak = max(case.get("peak_mb", 0) for case in cases)
            lines.append(
                f"  memory of a worker: {max(early)} MB after {WARM} cases, {min(late)} MB at the end; peak {peak} MB"
            )
    for run in known["runs"]:
        if run.get("memory"):
            first, last = run["memory"][min(1, len(run["memory"]) - 1)], run["memory"][-1]
            lines += [
                f"  daemon alive: {run['alive']}, exit {run['exit']}; tracebacks in its log: {run['tracebacks']}",
                f"  spool left: {len(run['spool'])}; all processes: {first}, at the end {last}",
            ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run cases that are not in the results yet, and print the figures; 1 when one is not explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=("path", "daemon"))
    parser.add_argument("--cases", type=int, default=1000, help="How many there shall be in the end.")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Stop after N seconds.")
    parser.add_argument("--results", type=Path, default=Path("fuzz.json"))
    given = parser.parse_args(arguments)
    known = load(given.results)
    end = time.monotonic() + given.seconds
    todo = [number for number in range(given.cases) if f"{given.form}:{given.seed}:{number}" not in known["cases"]]
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    class Enough(Exception):
        pass

    def record(number: int, answer: dict[str, Any]) -> None:
        known["cases"][f"{given.form}:{given.seed}:{number}"] = answer
        save(given.results, known)
        if given.form == "path" and time.monotonic() > end:
            raise Enough

    try:
        with contextlib.suppress(Enough):
            if given.form == "path":
                by_path(todo, given.seed, folder, record)
            else:
                known["runs"].append(
                    {"form": "daemon", "cases": len(todo), **by_daemon(todo, given.seed, folder, record, end=end)}
                )
                save(given.results, known)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        print(summary(known))
    return int(any(case["outcome"] in UNEXPLAINED for case in known["cases"].values()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        worker()
    else:
        sys.exit(main())
