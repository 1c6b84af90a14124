"""Ignore names that are never slides: of NAS systems, operating systems, and tools that still copy.

They are separate from ``intake.ignore``. A lab with patterns of its own keeps these too, and gets those of later
versions.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

from wsi_denoise.settings import IntakeSettings

SYSTEM_NAMES = {
    "recycle bins": (
        *("#recycle", "@Recycle", ".recycle", ".Recycle.Bin", "$RECYCLE.BIN", "RECYCLER", "Network Trash Folder"),
        *(".Trash", ".Trash-*", ".Trashes", ".deleted", ".stversions"),
    ),
    "snapshots": (
        *("#snapshot", "~snapshot", "@snapshot", "@Recently-Snapshot", "@GMT-*", "@sharesnap"),
        *(".snapshot", ".snapshots", ".snap", ".zfs", ".ckpt"),
    ),
    "NAS systems": ("@eaDir", "@tmp", "*@SynoEAStream", "*@SynoResource", "@__thumb", ".@*"),
    "operating systems": (
        *("System Volume Information", "lost+found", "Thumbs.db", "ehthumbs.db", "desktop.ini", "._*", ".DS_Store"),
        *(".AppleDouble", ".AppleDB", ".AppleDesktop", ".TemporaryItems", ".apdisk", ".fseventsd", ".Spotlight-V100"),
        *(".DocumentRevisions-V100", ".nfs????????*", ".fuse_hidden*", ".smbdelete*", ".goutputstream-*"),
        *("~$*", ".~lock.*"),
    ),
    "transfer tools": (
        *("*.part", "*.partial", "*.filepart", "*.tmp", "*.temp", "*.crdownload", "*.opdownload", "*.download"),
        *("*.aria2", "*.!ut", "*.!sync", "*.lftp", "*.lftp-pget-status", ".in.*", ".pureftpd-upload.*", "*.duck"),
        *("*.aspx", "*.aspera-ckpt", "*.aspera-inprogress", "*.ffs_tmp", "*.ffs_lock", "*.ffs_db", "_gsdata_"),
        # rsync adds a dot and six characters to a hidden name; Nextcloud a tilde and eight.
        *(".?*.?*.??????", ".~tmp~", ".rsync-partial", ".rsync-tmp", ".*.~????????"),
        *(".syncthing.*", "~syncthing~*", ".stfolder", ".sync", ".dropbox", ".dropbox.cache", ".unison.*"),
    ),
}
"""Patterns of file and folder names by their origin. Case is ignored."""

SYSTEM_PATTERNS = tuple(pattern for patterns in SYSTEM_NAMES.values() for pattern in patterns)
_SYSTEM = re.compile("|".join(map(translate, SYSTEM_PATTERNS)), re.IGNORECASE)


@lru_cache(maxsize=65536)
def is_system_name(name: str) -> bool:
    """Return whether the name of a file or folder matches :data:`SYSTEM_NAMES`.

    Examples
    --------
    >>> is_system_name("#Recycle"), is_system_name("a.svs.filepart"), is_system_name("a.svs")
    (True, True, False)
    """
    return _SYSTEM.match(name) is not None


def patterns(intake: IntakeSettings) -> list[str]:
    """Return every pattern of names that intake ignores, those of ``intake.ignore`` first."""
    return [*intake.ignore, *(SYSTEM_PATTERNS if intake.ignore_system else ())]
