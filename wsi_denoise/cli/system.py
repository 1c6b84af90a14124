"""Commands for the installation: ``models``, ``doctor``, ``config``, ``confirm`` and ``db``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_denoise.cli import examples, options
from wsi_denoise.system.redact import public

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsi_denoise.network.weights import Measured, ModelCard, Nuclei

#: Sigma in grey levels for which `models` prints the gain.
_SUMMARY_SIGMA = 25.0


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show this preset with all its measurements.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the presets, or show one in full."""
    from wsi_denoise.cli import printing
    from wsi_denoise.network import weights

    cards = weights.presets() if name is None else [weights.card(name)]
    if as_json:
        return printing.as_json({"presets": [card.to_json() for card in cards]})
    if name is not None:
        return _card(cards[0])
    head = ("PRESET", "FILTERS", f"GAIN AT SIGMA {_SUMMARY_SIGMA:g}", "PURPOSE")
    printing.table(head, [(card.name, card.filters, _gain(card), card.purpose) for card in cards], right=(1,))
    print("wsi-denoise models NAME shows all measurements of a preset.", file=sys.stderr)
    return None


def _gain(card: ModelCard) -> str:
    """Return the smallest and largest gain over the measured sources, for fresh white noise of one sigma."""
    if card.not_for_slides:
        return "not for slides"
    rows = [row for row in card.measured if row.protocol == "fresh" and row.sigma == _SUMMARY_SIGMA]
    if not rows:
        return "not measured"
    gains = [row.psnr - row.noisy_psnr for row in rows]
    return f"{min(gains):+.1f} to {max(gains):+.1f} dB, {len(rows)} sources"


def _card(card: ModelCard) -> None:
    from wsi_denoise.network.weights import MEASURED_COLUMNS, NUCLEI_COLUMNS

    print(f"{card.name}  {card.purpose}")
    kind = "residual" if card.residual else "direct"
    print(
        f"  {card.architecture}, {card.filters} filters, {card.parameters:,} parameters, {kind} output;"
        f" {card.protocol} noise, {card.samples_seen:,} crops; {card.licence}; {card.sha256[:12]}"
    )
    if card.not_for_slides:
        print("  not for slides: it only reproduces a published table")
    if not card.measured:
        print("  not measured yet")
        return
    _measurements(MEASURED_COLUMNS, card.measured, 3)
    if card.nuclei:
        print("\n  nuclei per image, F1 against the clean image, and images with more than 5 % fewer nuclei")
        _measurements(NUCLEI_COLUMNS, card.nuclei, 2)


def _measurements(columns: Sequence[str], rows: Sequence[Measured | Nuclei], figures: int) -> None:
    """Print rows of a card; columns from `figures` on are aligned right."""
    from wsi_denoise.cli import printing

    head = ("", *(column.upper() for column in columns))
    printing.table(head, [("", *row.cells()) for row in rows], right=range(figures, len(head)))


def doctor(
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    output: options.Output = None,
    as_json: options.Json = False,
) -> int:
    """Check the installation, folders and settings."""
    from wsi_denoise import doctor as examination
    from wsi_denoise.cli import printing

    checks = examination.examine(options.load(config, sets, database, output=output))
    found = examination.summary(checks)
    if as_json:
        printing.as_json(found)
    else:
        printing.table(("", "CHECK", "FOUND"), [(check.state, check.name, check.text) for check in checks])
    return 0 if found["ok"] else 1


def config(
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    output: options.Output = None,
    preset: options.Preset = None,
    scheduler: options.Scheduler = None,
    port: options.Port = None,
    as_json: options.Json = False,
) -> None:
    """Show the merged settings and their origins."""
    from wsi_denoise import settings
    from wsi_denoise.cli import printing

    loaded = options.load(config, sets, database, output=output, preset=preset, scheduler=scheduler, port=port)
    values = loaded.settings.model_dump(mode="json")
    rows: dict[str, dict[str, Any]] = {}
    for name, _default, _description in settings.table():
        section, _, key = name.partition(".")
        value = values[section][key] if key else values[section]
        rows[name] = {"value": public(name, value), "origin": loaded.origins[name]}
    if as_json:
        return printing.as_json({"settings": rows})
    lines = [(name, json.dumps(row["value"]), row["origin"]) for name, row in rows.items()]
    printing.table(("SETTING", "VALUE", "FROM"), lines)
    return None


def confirm(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Output or quarantine folder; output.folder by default.")
    ] = None,
    output: options.Output = None,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Confirm that the output folder is the right one."""
    from wsi_denoise.cli import printing
    from wsi_denoise.daemon.folders import MarkedFolder, output_folder, quarantine_folder
    from wsi_denoise.errors import UsageError
    from wsi_denoise.jobs import places

    loaded = options.load(config, sets, database, output=output)
    settings = loaded.settings
    with options.opened(loaded, make=False) as store:
        path = settings.output.folder if folder is None else folder.absolute()
        others = {each.path for each in places.folders(store)}
        known = {each: MarkedFolder(each, store, settings.output, origin=options.ORIGIN) for each in others}
        for of_settings in (output_folder, quarantine_folder):
            marked = of_settings(loaded, store, options.ORIGIN)
            known[marked.path] = marked
        if path not in known:
            raise UsageError(f"{path} is not a folder of this database: {', '.join(map(str, sorted(known)))}")
        known[path].confirm()
    if as_json:
        printing.as_json({"folder": str(path)})
    else:
        print(f"{printing.plain(str(path))} is marked: slides are written to it from now on.")


db = typer.Typer(help="Manage the job database.", no_args_is_help=True)


@db.command(context_settings=options.HELP_NAMES, epilog=examples.epilog("db upgrade"))
def upgrade(
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Upgrade the database to this program's version."""
    with options.opened(options.load(config, sets, database), upgrade=True) as store:
        store.check()
        _good(str(store), as_json=as_json)


@db.command(context_settings=options.HELP_NAMES, epilog=examples.epilog("db check"))
def check(
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Check the database's version without changing it."""
    from wsi_denoise.jobs.store import JobStore

    store = JobStore(options.load(config, sets, database).settings.database_url)
    try:
        store.check()
        _good(str(store), as_json=as_json)
    finally:
        store.close()


@db.command(context_settings=options.HELP_NAMES, epilog=examples.epilog("db backup"))
def backup(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; otherwise backups/ in the state folder.")
    ] = None,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Copy the database while programs use it.

    The copy is checked before it gets its name.
    """
    from wsi_denoise.cli import printing
    from wsi_denoise.jobs.database import backup as copying
    from wsi_denoise.jobs.store import JobStore

    settings = options.load(config, sets, database).settings
    name = f"jobs-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sqlite"
    target = file.absolute() if file else settings.jobs.state / "backups" / name
    store = JobStore(settings.database_url)
    try:
        size = copying.backup(store, target)
    finally:
        store.close()
    if as_json:
        printing.as_json({"backup": str(target), "bytes": size})
    else:
        print(f"{printing.plain(str(target))} ({size / 1e6:.1f} MB)")


@db.command(context_settings=options.HELP_NAMES, epilog=examples.epilog("db tidy"))
def tidy(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    config: options.Config = None,
    sets: options.Set = None,
    database: options.Database = None,
    as_json: options.Json = False,
) -> None:
    """Remove expired job records and finished blocks.

    The settings jobs.keep_days and jobs.keep_spool_days decide. A daemon does the same once a day.
    """
    from wsi_denoise.cli import printing
    from wsi_denoise.daemon import retention

    loaded = options.load(config, sets, database)
    with options.existing(loaded) as store:
        found = retention.tidy(loaded.settings, store, datetime.now(UTC), origin=options.ORIGIN, dry=dry_run)
    if as_json:
        printing.as_json(
            {"spools": len(found.spools), "bytes": found.size, "jobs": list(found.jobs), "dry_run": dry_run}
        )
    else:
        print(f"{'would remove' if dry_run else 'removed'}: {found}")


def _good(where: str, *, as_json: bool) -> None:
    from wsi_denoise.cli import printing

    if as_json:
        printing.as_json({"database": where, "ok": True})
    else:
        print(f"{printing.plain(where)} is up to date")
