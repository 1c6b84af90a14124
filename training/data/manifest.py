"""What the presets are trained on, where it comes from, and whether it is here: ``python -m training.data.manifest``.

``training/data/manifest.json`` lists every source with its licence, its origin and a checksum of its files. The program
compares the files with it, and prints how to get missing ones. ``--write`` updates the checksums.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from training import command, pages
from training.data import sources

FILE = Path(__file__).with_name("manifest.json")


def known() -> dict[str, Any]:
    """Return the manifest."""
    return pages.read_json(FILE)


def here(shared: Path) -> dict[str, dict[str, Any]]:
    """Return number and checksum of the files of each training source.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    """
    return {
        source.name: {"files": len(source.files), "sha256": sources.digest(source.files)}
        for source in (*sources.default_sources(shared), *sources.paper_sources(shared))
    }


def differences(shared: Path) -> list[str]:
    """Return one line for each source that is missing or differs from the manifest, with the remedy."""
    manifest = known()["sources"]
    try:
        found = here(shared)
    except FileNotFoundError as error:
        ways = [f"{source['name']}: {source['get']}" for source in manifest]
        return [f"{error.filename} is missing. The sources and how to get them:", *ways]
    wrong = []
    for source in manifest:
        mine = found.get(source["name"])
        if mine != {"files": source["files"], "sha256": source["sha256"]}:
            wrong.append(f"{source['name']}: the files are not those of the manifest. {source['get']}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Compare or write the checksums for the command-line options."""
    options = command.parser("training.data.manifest", __doc__, "shared")
    options.add_argument("--write", action="store_true", help="write counts and checksums of the files that are here")
    given = options.parse_args(arguments)
    if given.write:
        content, found = known(), here(given.shared)
        content["sources"] = [{**source, **found[source["name"]]} for source in content["sources"]]
        pages.write_json(FILE, content)
        return 0
    wrong = differences(given.shared)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"all {len(known()['sources'])} sources are here, as the manifest says")
        print(f"photographs, for runs that had them: {known()['photographs']['get']}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
