"""One slide on a real Dask cluster: from a noisy TIFF of real tissue to a verified, published one.

One worker process serves all of the module; the worker that is killed is that one, and its nanny starts another.
"""

import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import ImageCms

from support.events import RecordedEvents
from support.started import environment, mark, started
from wsi_denoise.errors import (
    BlockKillsWorker,
    JobCancelled,
    NoSuchPreset,
    NotASlide,
    OutputExists,
    SlideChanged,
    SlideError,
    UnreadableTile,
)
from wsi_denoise.processing.dask import remote
from wsi_denoise.processing.dask.cluster import Cluster, connect
from wsi_denoise.processing.dask.prefetch import Prefetch
from wsi_denoise.processing.events import Interrupted, Progress
from wsi_denoise.processing.publish import Output
from wsi_denoise.processing.slide import Request, Result, denoise_slide
from wsi_denoise.processing.spool import THUMBNAIL
from wsi_denoise.processing.values import SlidePlan
from wsi_denoise.quality import patch_map
from wsi_denoise.settings import Settings, load
from wsi_denoise.slide import provenance
from wsi_denoise.slide.base import as_found
from wsi_denoise.slide.geometry import BlockIndex, level_sizes
from wsi_denoise.slide.verify import sha256

ICC = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
MPP = 0.5
FIRST, SECOND = BlockIndex(0, 0), BlockIndex(0, 1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    settings = settings_in(tmp_path_factory.mktemp("cluster"))
    with marking(), connect(settings) as connected:
        yield connected


@contextmanager
def marking() -> Iterator[None]:
    """Start processes that mark the blocks they run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        yield


def settings_in(folder: Path, **values: object) -> Settings:
    overrides = {
        "compute.workers": 1,
        "compute.threads": 1,
        "compute.device": "cpu",
        "output.compression": "deflate",
        "tissue.mode": "all",
        **{name.replace("__", "."): value for name, value in values.items()},
    }
    return load(overrides=overrides, folder=folder, environ={}).settings


def noisy(clean: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(11).normal(0, sigma, clean.shape)
    return np.rint(np.clip(clean + noise, 0, 255)).astype(np.uint8)


def write_slide(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        compression="adobe_deflate",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="centimeter",
        iccprofile=ICC,
        metadata=None,
    )
    return path


@pytest.fixture(scope="module")
def clean(tissue_image) -> np.ndarray:
    return np.pad(tissue_image, ((0, 600), (0, 700), (0, 0)), mode="reflect")[:1600, :1700]


@dataclass
class Case:
    """One slide and all that a run of it needs."""

    cluster: Cluster
    folder: Path
    slide: Path
    settings: Settings
    watched: bool = True
    events: RecordedEvents = field(default_factory=RecordedEvents)
    """Of the latest run."""

    @property
    def output(self) -> Path:
        return self.folder / "denoised" / "a.tiff.denoised.tiff"

    @property
    def maps(self) -> Path:
        return self.folder / "maps" / "1.npz"

    def run(self, events: RecordedEvents | None = None, *, prefetch: Prefetch | None = None, **wishes: Any) -> Result:
        self.events = events or RecordedEvents()
        return denoise_slide(self.request(**wishes), self.cluster, self.events, prefetch=prefetch)

    def request(
        self, *, check_source: Callable[[], None] = lambda: None, preset: str = "paper", **wishes: Any
    ) -> Request:
        return Request(
            path=self.slide,
            fingerprint=sha256(self.slide),
            settings=self.settings,
            preset=preset,
            output=Output(self.settings.output, lambda _facts: self.output),
            maps=self.maps,
            check_source=check_source,
            files=(as_found(self.slide),) if self.watched else (),
            **wishes,
        )

    @property
    def plan(self) -> SlidePlan:
        return self.events.plans[0]

    @property
    def seen(self) -> list[Progress]:
        return self.events.progress

    @property
    def spooled(self) -> Path:
        return self.plan.work.spool

    def pixels(self) -> np.ndarray:
        with tifffile.TiffFile(self.output) as tiff:
            return tiff.pages.first.asarray()

    def left_over(self) -> list[str]:
        """Files in the output folder that are not the output."""
        folder = self.output.parent
        return sorted(file.name for file in folder.iterdir() if file != self.output) if folder.is_dir() else []


@pytest.fixture
def strip(cluster, clean, tmp_path) -> Case:
    """A slide of two blocks, the second one narrow."""
    slide = write_slide(tmp_path / "a.tiff", noisy(clean[:200], 15))
    return Case(cluster, tmp_path, slide, settings_in(tmp_path))


@pytest.fixture(scope="module")
def finished(cluster, clean, tmp_path_factory) -> tuple[Case, Result]:
    """A slide of four blocks with noise of sigma 25, done once for several tests."""
    folder = tmp_path_factory.mktemp("finished")
    slide = write_slide(folder / "a.tiff", noisy(clean, 25))
    case = Case(cluster, folder, slide, settings_in(folder, tissue__mode="auto"))
    before = sha256(slide), slide.stat().st_mtime_ns
    result = case.run()
    assert (sha256(slide), slide.stat().st_mtime_ns) == before
    return case, result


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def test_the_output_is_closer_to_the_clean_image(finished, clean):
    case, _ = finished
    after = case.pixels()
    assert after.shape == clean.shape
    assert psnr(after, clean) - psnr(noisy(clean, 25), clean) > 5


def test_the_output_opens_with_all_that_the_source_had(finished):
    case, result = finished
    assert result.output == case.output
    assert sha256(case.output) == result.sha256
    with openslide.OpenSlide(case.output) as slide:
        assert slide.level_dimensions == level_sizes(1700, 1600)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(MPP, rel=1e-3)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(MPP, rel=1e-3)
        assert slide.color_profile.tobytes() == ICC
    assert case.left_over() == []


def test_every_level_is_the_one_before_halved(finished):
    case, _ = finished
    with tifffile.TiffFile(case.output) as tiff:
        levels = [page.asarray() for page in tiff.pages]
    for larger, smaller in pairwise(levels):
        padded = np.pad(larger.astype(int), ((0, larger.shape[0] % 2), (0, larger.shape[1] % 2), (0, 0)), mode="edge")
        sums = padded[0::2, 0::2] + padded[1::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 1::2]
        np.testing.assert_array_equal(smaller, (sums + 2) // 4)


def test_the_output_says_what_made_it(finished):
    case, result = finished
    facts = provenance.of_file(case.output)
    assert facts["fingerprint"] == sha256(case.slide)
    assert facts["preset"] == "paper"
    assert facts["model_sha256"] == result.model_sha256
    assert facts["settings"] == case.settings.pixel_settings()
    assert facts["numerics"] == case.plan.work.plan.numerics
    assert facts["region"] is None
    assert {key: facts[key] for key in result.facts} == result.facts
    # File names carry patients' numbers: nothing of the path is written down.
    assert b"a.tiff" not in case.output.read_bytes()[:4096]
    assert str(case.folder) not in str(facts)


def test_evidence_is_measured(finished):
    case, result = finished
    metrics = result.metrics
    assert metrics["sigma_before_wavelet"] == pytest.approx(25, rel=0.2)
    assert metrics["sigma_after_wavelet"] < 10
    assert metrics["tissue_patches"] == int(case.plan.tissue.sum())
    assert result.judgement.verdict in {"pass", "review"}
    patches = patch_map.load(case.maps)
    assert patches.sigma_removed.shape == case.plan.work.lattice.patch_shape == (17, 18)
    assert np.nanmedian(patches.sigma_removed) == pytest.approx(25, rel=0.25)
    assert set(result.seconds) == {"read", "network", "measure", "encode", "total"}
    assert all(seconds > 0 for seconds in result.seconds.values())


def test_progress_goes_up_to_the_end(finished):
    case, _ = finished
    done = [progress.done for progress in case.seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 4)
    assert {progress.total for progress in case.seen} == {4}
    assert {progress.resumed for progress in case.seen} == {0}
    assert case.seen[-1].seconds_left == pytest.approx(0)
    assert case.seen[-1].rate > 0


def test_a_second_run_takes_all_blocks_from_the_spool_and_gives_the_same(finished):
    case, result = finished
    before = case.pixels()
    again = case.run()
    assert [(progress.done, progress.resumed) for progress in case.seen] == [(4, 4)]
    np.testing.assert_array_equal(case.pixels(), before)
    assert again.metrics == result.metrics


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (97, 95), (300, 200)])
def test_small_slides_as_jpeg(size, cluster, clean, tmp_path):
    slide = write_slide(tmp_path / "a.tiff", noisy(clean[: size[1], : size[0]], 15))
    case = Case(cluster, tmp_path, slide, settings_in(tmp_path, output__compression="jpeg", tissue__mode="auto"))
    result = case.run()
    assert sha256(case.output) == result.sha256
    with openslide.OpenSlide(case.output) as written:
        assert written.level_dimensions == level_sizes(*size)


class Killer(RecordedEvents):
    """Kills the worker that says it works on a block, a number of times."""

    def __init__(self, block: BlockIndex, times: int) -> None:
        super().__init__()
        self.killed: list[int] = []
        self._block, self._times = block, times
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def planned(self, plan: SlidePlan) -> None:
        super().planned(plan)
        self._thread = threading.Thread(target=self._kill, args=(mark(plan.work.spool, self._block),))
        self._thread.start()

    def _kill(self, mark: Path) -> None:
        while len(self.killed) < self._times and not self._stop.wait(0.002):
            try:
                worker = int(mark.read_text("ascii"))
            except (OSError, ValueError):
                continue
            if worker not in self.killed:
                self.killed.append(worker)
                os.kill(worker, signal.SIGKILL)

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()


@pytest.fixture
def killer() -> Iterator[Callable[[BlockIndex, int], Killer]]:
    made: list[Killer] = []

    def make(block: BlockIndex, times: int) -> Killer:
        made.append(Killer(block, times))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_a_worker_that_dies_costs_nothing_but_time(strip, killer):
    death = killer(FIRST, 1)
    result = strip.run(death)
    assert len(death.killed) == 1
    assert sha256(strip.output) == result.sha256
    assert strip.seen[-1].done == 2
    undisturbed = strip.pixels()
    for file in strip.spooled.iterdir():
        file.unlink()
    strip.run()
    np.testing.assert_array_equal(strip.pixels(), undisturbed)


@pytest.mark.slow
def test_a_block_that_always_kills_its_worker_is_named_and_the_others_are_kept(strip, killer):
    deaths = killer(SECOND, 10)
    with pytest.raises(BlockKillsWorker) as caught:
        strip.run(deaths)
    assert f"block {SECOND}, at x 1536, y 0" in str(caught.value)
    assert len(deaths.killed) >= 3
    assert not strip.output.exists()
    deaths.stop()
    strip.run()
    assert strip.seen[0].resumed == 1


def test_a_spooled_block_that_was_cut_off_is_done_again(strip):
    strip.run()
    before = strip.pixels()
    file = strip.spooled / f"{SECOND}.block"
    os.truncate(file, file.stat().st_size // 2)
    strip.run()
    assert (strip.seen[0].done, strip.seen[0].resumed) == (1, 1)
    assert strip.seen[-1].done == 2
    np.testing.assert_array_equal(strip.pixels(), before)


@pytest.mark.parametrize("member", ["0/0/2", "reduced", "evidence.npz"])
def test_a_flipped_bit_in_the_spool_is_found_and_done_again(strip, member):
    strip.run()
    before = strip.pixels()
    file = strip.spooled / f"{FIRST}.block"
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member)
    content = bytearray(file.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + info.file_size // 2] ^= 1
    file.write_bytes(content)
    strip.run()
    # Every finished block is read completely before the slide resumes from it.
    assert strip.seen[0].done == 1
    assert [progress.done for progress in strip.seen][-2:] == [1, 2]
    np.testing.assert_array_equal(strip.pixels(), before)


def test_a_block_that_vanishes_while_the_slide_is_done_is_done_again(strip):
    removed: list[Path] = []

    class Removes(RecordedEvents):
        def check(self) -> None:
            if not removed and self.progress and self.progress[-1].done == 2:
                removed.append(strip.spooled / f"{FIRST}.block")
                removed[0].unlink()

    strip.run(Removes())
    assert removed
    assert [progress.done for progress in strip.seen][-2:] == [1, 2]
    assert strip.output.is_file()


def test_somebody_elses_file_is_not_overwritten(strip):
    strip.output.parent.mkdir()
    strip.output.write_bytes(b"a thesis")
    for overwrite in (False, True):
        strip.settings = settings_in(strip.folder, output__overwrite=overwrite)
        with pytest.raises(OutputExists):
            strip.run()
        assert strip.output.read_bytes() == b"a thesis"
        assert strip.left_over() == []


def test_an_output_of_other_settings_is_replaced_only_when_asked(strip):
    strip.run()
    first = strip.output.read_bytes()
    strip.settings = settings_in(strip.folder, output__compression="jpeg")
    with pytest.raises(OutputExists):
        strip.run()
    assert strip.output.read_bytes() == first
    strip.settings = settings_in(strip.folder, output__compression="jpeg", output__overwrite=True)
    strip.run()
    assert provenance.of_file(strip.output)["settings"]["output.compression"] == "jpeg"
    assert strip.left_over() == []


def test_the_output_of_another_slide_is_never_replaced(strip, clean):
    strip.run()
    first = strip.output.read_bytes()
    tifffile.imwrite(strip.slide, np.ascontiguousarray(clean[:600, ::-1]), photometric="rgb", tile=(256, 256))
    strip.settings = settings_in(strip.folder, output__overwrite=True)
    with pytest.raises(OutputExists):
        strip.run()
    assert strip.output.read_bytes() == first
    assert strip.left_over() == []


def test_a_folder_that_cannot_be_flushed_does_not_undo_what_is_published(strip, monkeypatch):
    flushed = []

    def refuse(handle):
        flushed.append(handle)
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("wsi_denoise.system.files.os.fsync", refuse)
    strip.run()
    assert flushed
    assert strip.output.is_file()


def test_a_cancelled_slide_stops_and_publishes_nothing(strip):
    class Cancelled(RecordedEvents):
        def check(self) -> None:
            if self.progress and self.progress[-1].done:
                raise JobCancelled

    with pytest.raises(JobCancelled):
        strip.run(Cancelled())
    assert not strip.output.exists()
    assert strip.left_over() == []
    strip.run()
    assert strip.seen[0].resumed >= 1
    assert strip.output.is_file()


def test_a_slide_can_be_cancelled_before_anything_is_done(strip):
    class Cancelled(RecordedEvents):
        def check(self) -> None:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        strip.run(Cancelled())
    assert strip.seen == []


def test_a_shutdown_lets_the_running_block_finish(cluster, clean, tmp_path):
    # Four blocks: as one ends, the worker is at the next one when the main process is asked again, however fast it is.
    slide = write_slide(tmp_path / "a.tiff", noisy(clean, 15))
    square = Case(cluster, tmp_path, slide, settings_in(tmp_path))
    running: list[Path] = []

    class Stopped(RecordedEvents):
        def check(self) -> None:
            if self.plans and not running:
                running.extend(started(square.spooled))
                if running:
                    raise Interrupted

    with pytest.raises(Interrupted):
        square.run(Stopped())
    assert running[0].with_suffix(".block").is_file()
    assert not square.output.exists()
    square.run()
    assert square.seen[0].resumed >= 1


@pytest.fixture
def prefetch(cluster) -> Iterator[Prefetch]:
    prefetch = Prefetch(cluster)
    yield prefetch
    prefetch.drop()


class Starts(RecordedEvents):
    """Starts another slide ahead as soon as workers become idle."""

    def __init__(self, prefetch: Prefetch, following: "Case") -> None:
        super().__init__()
        self._prefetch, self._planning = prefetch, following.request().planning

    def submitted(self) -> None:
        super().submitted()
        self._prefetch.start(*self._planning)


def another(strip: Case, clean: np.ndarray) -> Case:
    """A second slide, in a folder of its own."""
    folder = strip.folder / "next"
    folder.mkdir()
    slide = write_slide(folder / "a.tiff", noisy(clean[300:500, :400], 15))
    return Case(strip.cluster, folder, slide, settings_in(folder))


class Listed(Cluster):
    """A cluster that lists the submitted tasks."""

    def call(self, function, *arguments, priority=0):
        future = super().call(function, *arguments, priority=priority)
        self.tasks.append((function, future))
        return future

    @cached_property
    def tasks(self) -> list[tuple[Callable[..., object], Any]]:
        return []

    @property
    def calls(self) -> list[Callable[..., object]]:
        return [function for function, _ in self.tasks]

    def statuses(self, wanted: Callable[..., object]) -> list[str]:
        """Return the states of all tasks of this function."""
        return [future.status for function, future in self.tasks if function is wanted]


def test_the_next_slide_is_planned_while_the_last_blocks_run(strip, clean, prefetch):
    following = another(strip, clean)
    strip.run(Starts(prefetch, following), prefetch=prefetch)
    following.cluster = Listed(strip.cluster.client, "")
    following.run(prefetch=prefetch)
    assert (following.spooled / THUMBNAIL).is_file()
    assert remote.plan_slide not in following.cluster.calls, "it was planned a second time"
    assert remote.assemble in following.cluster.calls
    before = following.pixels()
    following.run()
    assert remote.plan_slide in following.cluster.calls
    np.testing.assert_array_equal(following.pixels(), before)


def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen in 20 s")


def blocks_in(case: Case) -> list[Path]:
    return list((case.folder / ".wsi-denoise" / "spool").glob("*/*.block"))


def test_the_first_blocks_of_the_next_slide_are_done_while_this_one_ends(strip, clean, prefetch):
    following = another(strip, clean)
    strip.run(Starts(prefetch, following), prefetch=prefetch)
    wait_until(lambda: blocks_in(following))
    (block,) = blocks_in(following)
    made = block.stat().st_mtime_ns
    result = following.run(prefetch=prefetch)
    assert following.seen[-1].resumed == 0, "it is this attempt's own work"
    assert result.seconds["network"] > 0
    assert block.stat().st_mtime_ns == made, "it was done a second time"
    before = following.pixels()
    following.run()
    np.testing.assert_array_equal(following.pixels(), before)


def test_blocks_begun_for_another_slide_are_not_taken(strip, clean, prefetch):
    following = another(strip, clean)
    prefetch.start(*following.request().planning)
    wait_until(lambda: blocks_in(following))
    strip.run(prefetch=prefetch)
    assert (strip.seen[-1].done, strip.seen[-1].total) == (2, 2)
    following.run(prefetch=prefetch)
    assert following.seen[-1].resumed == 1, "the block is in the spool although its result was lost"


def test_a_block_ahead_that_failed_is_done_again(strip, clean):
    following = another(strip, clean)
    listed = Listed(strip.cluster.client, "")
    prefetch = Prefetch(listed)
    spool = following.folder / ".wsi-denoise" / "spool"
    spool.parent.mkdir(exist_ok=True)
    spool.write_text("in the way")
    prefetch.start(*following.request().planning)
    wait_until(lambda: listed.statuses(remote.blocks) == ["error"])
    spool.unlink()
    following.run(prefetch=prefetch)
    assert following.output.is_file()


def test_a_guess_that_was_wrong_or_failed_costs_nothing(strip, clean, prefetch):
    following = another(strip, clean)
    prefetch.start(*following.request().planning)
    strip.run(prefetch=prefetch)
    whole = strip.slide.read_bytes()
    strip.slide.write_bytes(b"no slide at all" * 100)
    prefetch.start(*strip.request().planning)
    strip.slide.write_bytes(whole)
    following.run(prefetch=prefetch)
    with pytest.raises(NoSuchPreset):
        strip.run(prefetch=prefetch, preset="nonsense")


class Hanging(Cluster):
    """A cluster whose workers hang on what they are given, as on a file of a share that went away."""

    def call(self, _function, *_arguments, priority=0):
        return self.client.submit(time.sleep, 600, pure=False, priority=priority)


def test_a_plan_made_ahead_that_hangs_is_ended_and_not_begun_again(strip, cluster):
    hanging = Prefetch(Hanging(cluster.client, ""))

    class Hangs(Starts):
        def check(self) -> None:
            if hanging.end_hung(2.0):
                raise Interrupted

    # The only worker hangs before the output is put together.
    with pytest.raises(Interrupted):
        strip.run(Hangs(hanging, strip))
    strip.run(Hangs(hanging, strip))
    assert strip.seen[0].resumed == 2
    assert strip.events.tails == 1
    assert strip.output.is_file()


def test_a_worker_that_dies_with_a_plan_made_ahead_loses_only_that(strip, clean, prefetch, killer):
    following = another(strip, clean)
    death = killer(SECOND, 1)

    class StartsAndDies(Starts):
        def planned(self, plan: SlidePlan) -> None:
            super().planned(plan)
            death.planned(plan)

    strip.run(StartsAndDies(prefetch, following), prefetch=prefetch)
    assert len(death.killed) == 1
    assert strip.seen[-1].done == 2
    following.run(prefetch=prefetch)
    assert following.output.is_file()


def test_nothing_works_on_a_bad_slide_any_more_when_that_is_told(clean, tmp_path):
    slide = write_slide(tmp_path / "a.tiff", noisy(clean, 15))
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        offset, length = page.dataoffsets[0], page.databytecounts[0]

    class Damages(RecordedEvents):
        def planned(
            self, plan: SlidePlan
        ) -> None:  # not before: the thumbnail of a slide of one level needs every tile
            super().planned(plan)
            with slide.open("r+b") as file:
                file.seek(offset)
                file.write(bytes(length))

    settings = settings_in(tmp_path, compute__threads=2)
    with marking(), connect(settings) as two:
        square = Case(two, tmp_path, slide, settings, watched=False)  # the damage is made here, and changes the time
        with pytest.raises(UnreadableTile):
            square.run(Damages())
        assert list(started(square.spooled)) in ([], [mark(square.spooled, FIRST)])
        assert two.client.submit(os.getpid).result(timeout=60), "and the worker is there for the next one"


def test_a_source_that_changed_meanwhile_is_not_published(strip):
    def changed() -> None:
        raise SlideChanged("a.tiff")

    with pytest.raises(SlideChanged):
        strip.run(check_source=changed)
    assert not strip.output.exists()
    assert strip.left_over() == []


def test_what_is_wrong_with_a_slide_is_told_by_the_worker(strip):
    with pytest.raises(NoSuchPreset):
        strip.run(preset="nonsense")
    whole = strip.slide.read_bytes()
    strip.slide.write_bytes(b"no slide at all" * 100)
    with pytest.raises(NotASlide):
        strip.run()
    strip.slide.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError):
        strip.run()
    assert not strip.output.exists()


def test_a_region_is_done_at_its_place(strip):
    strip.run(region=(1500, 50, 5000, 100))
    assert strip.pixels().shape == (100, 200, 3)
    with tifffile.TiffFile(strip.slide) as tiff:
        source = tiff.pages.first.asarray()[50:150, 1500:1700]
    # The same field: what was changed is noise of sigma 15, not another place.
    assert psnr(strip.pixels(), source) > 20
    assert provenance.of_file(strip.output)["region"] == [1500, 50, 5000, 100]
