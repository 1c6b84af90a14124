"""A share that drops out at any step of a slide makes its job wait: the slide did nothing wrong."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openslide
import pytest
import tifffile

from wsi_denoise.daemon.disk_space import Need, Promises
from wsi_denoise.daemon.runner import Runner
from wsi_denoise.errors import DiskFull, OutputExists, OutputUnwritable, VerificationFailed
from wsi_denoise.processing import publish
from wsi_denoise.processing.assemble import verify
from wsi_denoise.processing.dask import tasks
from wsi_denoise.processing.dask.cluster import Cluster
from wsi_denoise.processing.dask.scheduler import Blocks
from wsi_denoise.processing.dask.stall import Watch
from wsi_denoise.processing.events import NoEvents
from wsi_denoise.processing.plan import plan_slide
from wsi_denoise.settings import LimitSettings, load
from wsi_denoise.slide import provenance
from wsi_denoise.slide.encoding import Encoding, cut
from wsi_denoise.slide.geometry import BlockIndex
from wsi_denoise.slide.pyramid import Header, Level, write_pyramid
from wsi_denoise.slide.verify import Expected, check_written

GONE = (errno.EHOSTDOWN, errno.ESTALE, errno.EIO)
"""What Python's Path.exists() does not take for an answer."""
FACTS = {"fingerprint": "ab" * 32, "preset": "paper", "model_sha256": "cd" * 32, "settings": {}, "region": None}


def of(number):
    return OSError(number, os.strerror(number))


@pytest.fixture(params=GONE)
def number(request):
    return request.param


@pytest.fixture
def share(monkeypatch, tmp_path, number):
    """A folder that answers nothing while it is out."""
    folder = tmp_path / "share"
    folder.mkdir()
    state = SimpleNamespace(folder=folder, out=False, calls=0)

    def guarded(real):
        def call(path, *others, **named):
            if state.out and isinstance(path, (str, Path)) and Path(path).is_relative_to(folder):
                state.calls += 1
                raise of(number)
            return real(path, *others, **named)

        return call

    for name in ("stat", "link", "replace", "rename", "unlink", "mkdir", "scandir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    monkeypatch.setattr("io.open", guarded(open))
    monkeypatch.setattr("builtins.open", guarded(open))
    return state


@pytest.fixture
def written(tmp_path):
    """A right output of one tile, and what is expected of it."""
    pixels = np.full((90, 100, 3), 200, np.uint8)
    encoding = Encoding("deflate")
    tile = encoding.encode(cut(pixels, 0, 0))
    path = tmp_path / "a.part"
    write_pyramid(path, [Level((100, 90), [tile])], encoding, Header(provenance.describe(FACTS)))
    small = np.full((23, 25, 3), 200, np.uint8)
    return path, Expected(100, 90, None, None, True, lambda _row, _column: tile, lambda _row, _column: small)


# -- reading back


def test_what_the_file_system_says_is_not_held_against_the_file(written, monkeypatch, number):
    path, expected = written
    check_written(path, expected, tiles=4)

    def refuse(*_args, **_named):
        raise of(number)

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        check_written(path, expected, tiles=4)


def test_a_library_that_hides_what_the_file_system_said_is_not_believed(written, monkeypatch, number):
    path, expected = written

    def refuse(*_args, **_named):
        raise openslide.OpenSlideError("cannot read")

    monkeypatch.setattr(openslide, "OpenSlide", refuse)
    with pytest.raises(VerificationFailed):
        check_written(path, expected, tiles=4)
    monkeypatch.setattr("wsi_denoise.slide.verify.sha256", lambda _path: (_ for _ in ()).throw(of(number)))
    with pytest.raises(OSError, match=os.strerror(number)):
        check_written(path, expected, tiles=4)


@pytest.mark.parametrize("error", [of(errno.EINVAL), OSError("no image")])
def test_what_a_damaged_file_gives_still_fails_it(written, monkeypatch, error):
    path, expected = written

    def refuse(*_args, **_named):
        raise error

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    with pytest.raises(VerificationFailed):
        check_written(path, expected, tiles=4)


def test_an_output_that_is_gone_with_its_share_is_tried_again(written):
    path, expected = written
    path.unlink()
    with pytest.raises(FileNotFoundError):
        check_written(path, expected, tiles=4)


@pytest.fixture
def planned(tmp_path):
    """Return a plan of a small slide with its spool in a folder."""
    slide = tmp_path / "a.tiff"
    pixels = np.full((90, 100, 3), 200, np.uint8)
    tifffile.imwrite(slide, pixels, tile=(256, 256), photometric="rgb", metadata=None)
    settings = load(overrides={"tissue.mode": "all", "compute.device": "cpu"}, folder=tmp_path, environ={}).settings
    return lambda spool: plan_slide(slide, "f" * 64, settings, "paper", spool)


@pytest.mark.parametrize(("raised", "kind"), [(errno.ESTALE, OutputUnwritable), (errno.ENOSPC, DiskFull)])
def test_verifying_ends_as_writing_does(tmp_path, written, planned, monkeypatch, raised, kind):
    def refuse(*_args, **_named):
        raise of(raised)

    path, _ = written
    plan = planned(tmp_path / "spool")
    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    with pytest.raises(kind):
        verify(plan, path, 4)


def test_the_picture_of_a_trial(tmp_path, planned, share):
    plan = planned(tmp_path / "spool")
    target = share.folder / "a.tiff"
    tifffile.imwrite(target, np.zeros((90, 100, 3), np.uint8))
    tasks.preview(plan, target, target.with_suffix(".png"))
    share.out = True
    with pytest.raises(OutputUnwritable):
        tasks.preview(plan, target, target.with_suffix(".png"))


# -- room


def test_room_that_cannot_be_asked_for(tmp_path, share):
    promises = Promises(tmp_path / "space", kept=0)
    promises.reserve([Need(share.folder / "denoised", 10)])
    share.out = True
    with pytest.raises(OutputUnwritable, match="share"):
        promises.reserve([Need(tmp_path, 10), Need(share.folder / "denoised", 10)])


def test_a_share_that_is_out_for_a_moment_delays_nothing(tmp_path, share, caplog):
    promises = Promises(tmp_path / "space", kept=0)
    share.out = True

    def missing(_needs):
        share.out = False
        raise of(GONE[0])

    promises.missing = missing
    promises.reserve([Need(share.folder, 10)])
    assert "space cannot be reserved" in caplog.text


# -- the spool


@pytest.fixture
def spooled(share, planned):
    plan = planned(share.folder / "spool")
    plan.work.spool.mkdir(parents=True)
    (plan.work.spool / "00000-00000.block").write_bytes(b"block")
    return plan


def test_blocks_that_cannot_be_read(share, spooled):
    cluster, events = Cluster(None, "none"), NoEvents()
    watch = Watch(cluster, LimitSettings(), events)
    blocks = Blocks(spooled, cluster, events, watch)
    share.out = True
    with pytest.raises(OutputUnwritable):
        blocks.forget_damaged(BlockIndex(0, 0))
    with pytest.raises(OutputUnwritable):
        Blocks(spooled, cluster, events, watch)


def test_blocks_that_cannot_be_counted(share, spooled):
    share.out = True
    with pytest.raises(OutputUnwritable):
        Runner._needs(SimpleNamespace(_store=SimpleNamespace(file=None)), load(environ={}).settings, spooled)


# -- the name


@pytest.fixture
def request_of(share, tmp_path):
    """The request of a job whose output lies on the share."""
    settings = load(overrides={"output.folder": str(share.folder)}, folder=tmp_path, environ={}).settings
    source = tmp_path / "a.svs"
    source.write_bytes(b"slide")
    job = SimpleNamespace(id=1, slide=str(source), relative="a.svs", region=None, preset="paper", fingerprint="f" * 64)
    job.size_bytes, job.mtime_ns = source.stat().st_size, source.stat().st_mtime_ns
    runner = Runner(settings, None, 1, None, None, None)
    return runner._request(job, settings)


def test_a_name_that_cannot_be_asked_for(share, request_of):
    assert request_of.output.path(FACTS).name == "a.svs.denoised.tiff"
    share.out = True
    with pytest.raises(OutputUnwritable):
        request_of.output.path(FACTS)


def test_a_share_that_goes_while_an_output_is_looked_at_is_no_other_content(share, request_of, monkeypatch):
    """Else the same work would be published a second time, under another name."""
    target = share.folder / "a.svs.denoised.tiff"
    target.write_bytes(b"something")

    def goes(_path):
        share.out = True

    monkeypatch.setattr(provenance, "of_file", goes)
    with pytest.raises(OutputUnwritable):
        request_of.output.path(FACTS)


@pytest.fixture
def part(share):
    part = share.folder / ".a.part"
    part.write_bytes(b"verified")
    return part


def test_publishing_into_a_share_that_is_out(share, part):
    target = share.folder / "a.svs.denoised.tiff"
    share.out = True
    with pytest.raises(OutputUnwritable):
        publish.publish(part, target, FACTS)
    assert share.calls >= 2, "it was looked for, too"
    share.out = False
    publish.publish(part, target, FACTS)
    assert target.read_bytes() == b"verified"


@pytest.mark.parametrize("links", [True, False])
def test_a_share_that_goes_when_its_own_file_is_to_be_replaced(share, part, monkeypatch, links):
    target = share.folder / "a.svs.denoised.tiff"
    target.write_bytes(b"an earlier one")

    def goes(_path):
        share.out = True
        return FACTS

    def refuse(*_args, **_named):
        raise of(errno.EOPNOTSUPP)

    monkeypatch.setattr(provenance, "of_file", goes)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OutputUnwritable):
        publish.publish(part, target, FACTS)
    share.out = False
    assert target.read_bytes() == b"an earlier one"
    assert part.read_bytes() == b"verified"


def test_a_file_that_only_its_owner_may_read_is_other_content(share, part, monkeypatch):
    target = share.folder / "a.svs.denoised.tiff"
    target.write_bytes(b"a thesis")
    real = Path.open

    def refuse(path, *args, **named):
        if path == target:
            raise of(errno.EACCES)
        return real(path, *args, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputExists):
        publish.publish(part, target, FACTS)
