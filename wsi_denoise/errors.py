"""Every error a user can meet, in one tree.

::

    WsiDenoiseError
    ├── UsageError            the command or a setting is wrong (exit code 2)
    │   ├── SettingsInvalid, NoSuchJob, TransitionRefused, NoDatabase
    │   └── NoSuchPath, NoSlideInFolder, RegionOutside, UploadRefused
    ├── SlideError            the file is at fault: the job is quarantined
    │   ├── EmptyFile, NotASlide, UnsupportedSlide, NotRGB, NotBrightfield, ContradictoryColours, DecodersDisagree
    │   ├── TruncatedSlide, IncompleteSlide, UnreadableTile, TooLarge, NotARegularFile, NoPermission
    │   └── BlockKillsWorker, OpeningKillsWorker, OpeningTooSlow, SlideKillsDaemon
    ├── SourceError           the place the file is in: tried again later
    │   └── SlideVanished, SlideChanged, SourceUnavailable
    ├── OutputError
    │   └── DiskFull (tried again), OutputExists, OutputUnwritable, VerificationFailed
    ├── ModelError
    │   └── NoSuchPreset, WeightsDamaged, PresetNotForSlides
    ├── ClusterError
    │   └── WorkerLost, NoWorkers, WorkerDiffers, SchedulerUnreachable, DeviceOutOfMemory (all tried again)
    ├── StoreError
    │   ├── DatabaseBusy, DatabaseFull (both tried again), DatabaseUnreachable, LeaseLost
    │   └── DatabaseOutdated, DatabaseNewer, DatabaseReplaced
    ├── JobCancelled          a user asked for it
    └── InternalError         our own mistake

Each class has a stable ``code``, says what happened and what to do. The command line, the database, the dashboard and
``docs/lab/errors.md`` show the same text.

Examples
--------
>>> error = UnreadableTile("level 0, x 512, y 1024")
>>> error.code
'unreadable_tile'
>>> print(error)
A tile of the slide cannot be decoded: level 0, x 512, y 1024. Scan or copy the slide again; the original is untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class WsiDenoiseError(Exception):
    """Base of everything that is reported to a user.

    Parameters
    ----------
    detail : str
        What exactly happened this time, without a final full stop: a place in the slide, a path, a number.

    Attributes
    ----------
    code : str
        Stable name for programs; never changes once released.
    happened, advice : str
        What happened in general, and what to do, as complete sentences without and with full stop.
    retry : bool
        Whether the same job may succeed later without anybody changing the file.
    outlasts : bool
        Whether such an error is about the surroundings alone (a share, a disk, a cluster, a database): it is tried
        again however often it happens, and does not count against ``jobs.attempts``.
    """

    code: ClassVar[str] = "error"
    happened: ClassVar[str] = "Something went wrong"
    advice: ClassVar[str] = "See the log for details."
    retry: ClassVar[bool] = False
    outlasts: ClassVar[bool] = False

    def __init_subclass__(
        cls, *, code: str | None = None, retry: bool | None = None, outlasts: bool | None = None
    ) -> None:
        """Set what a class states in its header; the rest is inherited."""
        super().__init_subclass__()
        for name, value in (("code", code), ("retry", retry), ("outlasts", outlasts)):
            if value is not None:
                setattr(cls, name, value)

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.happened}{detail}. {self.advice}"


class UsageError(WsiDenoiseError, code="usage"):
    """The command or a setting is wrong."""

    happened = "The command cannot be carried out"
    advice = "See wsi-denoise --help."


class SettingsInvalid(UsageError, code="settings_invalid"):
    happened = "A setting is not valid"
    advice = "See docs/it/settings.md; wsi-denoise config shows where each value came from."


class NoSuchJob(UsageError, code="no_such_job"):
    happened = "There is no such job"
    advice = "wsi-denoise jobs lists them."


class TransitionRefused(UsageError, code="transition_refused"):
    happened = "The job's state does not allow this"
    advice = "wsi-denoise job ID shows its state and events."


class NoDatabase(UsageError, code="no_database"):
    happened = "There is no job database here"
    advice = "Change to the folder in which the daemon runs, or give its settings with --config."


class NoSuchPath(UsageError, code="no_such_path"):
    happened = "There is no such file or folder"
    advice = "Check the path."


class NoSlideInFolder(UsageError, code="no_slide_in_folder"):
    happened = "The folder holds no slide"
    advice = "Check the path; docs/lab/formats.md lists the formats that are read."


class RegionOutside(UsageError, code="region_outside"):
    happened = "The region lies beside the slide"
    advice = "Choose one within the slide; wsi-denoise job ID shows its size."


class UploadRefused(UsageError, code="upload_refused"):
    happened = "The dashboard did not accept the file"
    advice = "Nothing of it was kept; copy it into the inbox folder itself if it belongs there."


class SlideError(WsiDenoiseError, code="slide_error"):
    """The file itself is at fault; trying again changes nothing."""

    happened = "The slide cannot be processed"
    advice = "Scan or export the slide again; the original is untouched."


class EmptyFile(SlideError, code="empty_file"):
    happened = "The file has no content"
    advice = "Copy it again; a later change of the file queues it automatically."


class NotASlide(SlideError, code="not_a_slide"):
    happened = "The file is not an image that can be read"
    advice = "Remove it from the inbox, or copy the right file; a later change queues it automatically."


class UnsupportedSlide(SlideError, code="unsupported_slide"):
    happened = "The file is an image of a kind that is not supported"
    advice = "Export it as a brightfield RGB slide (SVS, NDPI, MRXS, OME-TIFF, DICOM or pyramidal TIFF)."


class NotRGB(SlideError, code="not_rgb"):
    happened = "The image is not 8-bit RGB"
    advice = "Export it as 8-bit RGB; multiplex and 16-bit images are not supported."


class ContradictoryColours(SlideError, code="contradictory_colours"):
    happened = "The slide's colours are uncertain, because the file and its compressed pixels state different ones"
    advice = "Export the slide again, as RGB without loss or with another program; the original is untouched."


class DecodersDisagree(SlideError, code="decoders_disagree"):
    happened = "Two libraries decode the slide to different pixels"
    advice = "Export the slide again, as RGB without loss or with another program; the original is untouched."


class NotBrightfield(SlideError, code="not_brightfield"):
    happened = "The slide has a dark background and looks like fluorescence"
    advice = 'The networks are trained on brightfield tissue. Set tissue.mode = "all" to process it nevertheless.'


class TruncatedSlide(SlideError, code="truncated"):
    happened = "The file ends before its image data does"
    advice = "The copy was cut off: copy it again; a later change of the file queues it automatically."


class IncompleteSlide(SlideError, code="incomplete_slide"):
    happened = "Files that belong to the slide are missing or damaged"
    advice = "Copy the slide again with all its files and folders; a later change of them queues it automatically."


class UnreadableTile(SlideError, code="unreadable_tile"):
    happened = "A tile of the slide cannot be decoded"
    advice = "Scan or copy the slide again; the original is untouched."


class TooLarge(SlideError, code="too_large"):
    happened = "The image declares more pixels than the limit allows"
    advice = "If the size is true, raise limits.megapixels."


class NotARegularFile(SlideError, code="not_a_regular_file"):
    happened = "The path is not a regular file inside the inbox"
    advice = "Links that leave the inbox, pipes and devices are not followed; copy the slide itself."


class NoPermission(SlideError, code="no_permission"):
    happened = "The file may not be read by the user that this program runs as"
    advice = "Give that user permission to read it; it is then queued automatically."


class BlockKillsWorker(SlideError, code="block_kills_worker"):
    happened = "A worker process died three times on the same block"
    advice = "The slide is probably damaged there; scan or copy it again, or raise limits.worker_memory."


class OpeningKillsWorker(SlideError, code="opening_kills_worker"):
    happened = "A worker process died each time the file was opened"
    advice = "The file is probably damaged; scan or copy it again, or raise limits.worker_memory."


class OpeningTooSlow(SlideError, code="opening_too_slow"):
    happened = "Opening the file took longer than the limit allows"
    advice = "The file is damaged, or its place very slow; then raise limits.open_seconds, and retry the job."


class SlideKillsDaemon(SlideError, code="slide_kills_daemon"):
    happened = "The whole program died each time that it was at this slide, before a block was finished"
    advice = "The system's log may say what ended it, such as memory; wsi-denoise retry ID tries again."


class SourceError(WsiDenoiseError, code="source_error", retry=True):
    """The place the file is in is at fault, not the file."""

    happened = "The slide could not be read from where it is"
    advice = "It is retried automatically."


class SlideVanished(SourceError, code="slide_vanished"):
    happened = "The file disappeared"
    advice = "If that was not meant, copy it into the inbox again."


class SlideChanged(SourceError, code="slide_changed"):
    happened = "The file changed while it was being read"
    advice = "It is read again from the start once it stands still."


class SourceUnavailable(SourceError, code="source_unavailable", outlasts=True):
    happened = "The folder or share cannot be read"
    advice = "Check that it is mounted and that permissions allow reading; it is retried automatically."


class OutputError(WsiDenoiseError, code="output_error"):
    """The result could not be written."""

    happened = "The result could not be written"
    advice = "Check the output folder."


class DiskFull(OutputError, code="disk_full", retry=True, outlasts=True):
    happened = "There is not enough free disk space"
    advice = "Free some space; the job resumes automatically."


class OutputExists(OutputError, code="output_exists"):
    happened = "The output file exists already and is not of this job"
    advice = "Move it away. output.overwrite = true replaces outputs of the same slide with other settings only."


class OutputUnwritable(OutputError, code="output_unwritable", retry=True, outlasts=True):
    happened = "The output folder cannot be written"
    advice = "Check that its share is mounted and that permissions allow writing; it is tried again automatically."


class VerificationFailed(OutputError, code="verification_failed"):
    happened = "The written file did not pass its verification and was not published"
    advice = "Retry the job; if it fails again, check disk and memory of this machine."


class ModelError(WsiDenoiseError, code="model_error"):
    """The network's weights or preset are at fault."""

    happened = "The model cannot be used"
    advice = "wsi-denoise models lists the presets."


class NoSuchPreset(ModelError, code="no_such_preset"):
    happened = "There is no such preset"
    advice = "wsi-denoise models lists them."


class WeightsDamaged(ModelError, code="weights_damaged"):
    happened = "The weights do not match the checksum of their model card"
    advice = "Install the package again."


class PresetNotForSlides(ModelError, code="preset_not_for_slides"):
    happened = "The preset exists to reproduce a published table and must not be used on slides"
    advice = "Choose another preset, or set model.allow_unsafe = true if you know why."


class ClusterError(WsiDenoiseError, code="cluster_error", retry=True):
    """The Dask cluster or the device is at fault."""

    happened = "The cluster failed"
    advice = "The job is retried automatically."


class WorkerLost(ClusterError, code="worker_lost"):
    happened = "A worker process was lost"
    advice = "The job resumes from its finished blocks automatically."


class NoWorkers(ClusterError, code="no_workers", outlasts=True):
    happened = "No worker process takes tasks"
    advice = "Check the cluster's workers, and the memory of this machine; the job is retried automatically."


class WorkerDiffers(ClusterError, code="worker_differs", outlasts=True):
    happened = "A worker has another version of the program or of the weights than the slide was planned with"
    advice = "Install the same version everywhere and restart daemon and workers; the job is retried automatically."


class SchedulerUnreachable(ClusterError, code="scheduler_unreachable", outlasts=True):
    happened = "The Dask scheduler cannot be reached"
    advice = "Check compute.scheduler and the network; the job is retried automatically."


class DeviceOutOfMemory(ClusterError, code="device_out_of_memory"):
    happened = "The device ran out of memory"
    advice = "There is no room for a single window: another program may use the device, or compute.window is too large."


class StoreError(WsiDenoiseError, code="store_error"):
    """The database is at fault."""

    happened = "The job database failed"
    advice = "wsi-denoise doctor checks it."


class DatabaseBusy(StoreError, code="database_busy", retry=True, outlasts=True):
    happened = "The job database is locked by another program"
    advice = "It is retried automatically; close programs that keep it open."


class DatabaseFull(StoreError, DiskFull, code="database_full", retry=True):
    happened = "There is no free disk space for the job database"
    advice = "Free some space; all work resumes automatically."


class DatabaseOutdated(StoreError, code="database_outdated"):
    happened = "The job database has another version than this program"
    advice = "Run wsi-denoise db upgrade."


class DatabaseNewer(DatabaseOutdated, code="database_newer"):
    happened = "A newer version of this program has upgraded the job database"
    advice = "Install that version here, or use a backup from before the upgrade."


class DatabaseUnreachable(StoreError, code="database_unreachable", retry=True, outlasts=True):
    happened = "The job database cannot be opened"
    advice = "Check jobs.database and permissions; it is retried automatically."


class DatabaseReplaced(StoreError, code="database_replaced"):
    happened = "The job database was removed or replaced while the program uses it, and no job is started"
    advice = "Put it back, or restart the program to continue with what is there now."


class LeaseLost(StoreError, code="lease_lost"):
    happened = "Another daemon has taken over the job"
    advice = "Nothing is lost: that one resumes from the finished blocks."


class JobCancelled(WsiDenoiseError, code="cancelled"):
    happened = "The job was cancelled"
    advice = "wsi-denoise retry ID queues it again."


class InternalError(WsiDenoiseError, code="internal_error"):
    happened = "The program made a mistake"
    advice = "The log has the details; please report it. wsi-denoise retry ID tries again."


def every_error() -> Iterator[type[WsiDenoiseError]]:
    """Yield each error class of this tree, base first; what never reaches a user is defined elsewhere and left out."""
    pending: list[type[WsiDenoiseError]] = [WsiDenoiseError]
    met = set()
    while pending:
        error = pending.pop(0)
        if error.__module__ == __name__ and error not in met:  # DatabaseFull is of two kinds
            met.add(error)
            yield error
        pending = [*error.__subclasses__(), *pending]
