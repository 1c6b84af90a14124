"""Where settings come from: defaults, ``wsi-denoise.toml``, variables, flags. Later wins.

Names are ``section.key`` everywhere. Relative paths start at the working directory, or at the folder of the file given
with ``--config``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings.model import Settings, fields, first_fault

FILE_NAME = "wsi-denoise.toml"
PREFIX = "WSI_DENOISE_"


@dataclass(frozen=True)
class Loaded:
    """Settings and the origin of each value.

    Parameters
    ----------
    settings : Settings
    origins : dict of str to str
        ``section.key`` to ``default``, a file's path, a variable's name, or ``flag``.
    """

    settings: Settings
    origins: dict[str, str]


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Merge defaults, file, variables and flags.

    Parameters
    ----------
    config : Path, optional
        Settings file. Without it ``wsi-denoise.toml`` in the working directory is used where it exists.
    overrides : mapping of str to object, optional
        Flags, as ``section.key`` to value. Strings are read as TOML values where they are, else as text.
    folder : Path, optional
        What relative paths are meant from; the working directory, or the folder of `config`.
    environ : mapping, optional
        Instead of the process's environment.

    Raises
    ------
    SettingsInvalid
        For an unreadable file, an unknown name or a value out of range.
    """
    base = folder or (config.parent if config else Path.cwd())
    file = config or base / FILE_NAME
    merged: dict[str, Any] = {}
    origins = {name: "default" for name, _ in fields()}
    if config or file.is_file():
        _merge(merged, origins, _read_toml(file), str(file))
    for variable, tree in _read_environment(os.environ if environ is None else environ):
        _merge(merged, origins, tree, variable)
    for name, value in (overrides or {}).items():
        _merge(merged, origins, _nested(name, _plain(name, value)), "flag")
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        name, fault = first_fault(error)
        raise SettingsInvalid(f"{fault} ({_origin(origins, name)})") from error
    return Loaded(_anchored(settings, base.absolute()), origins)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{file} cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{file}: {error}") from error


def _variable_tree(variable: str, value: str) -> dict[str, Any]:
    """Return what one variable sets, as pydantic-settings reads it (JSON for lists)."""
    # A fifth of a second to import, and most programs run without such variables.
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict  # noqa: PLC0415

    class Variables(Settings, BaseSettings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")

    class Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {variable.lower(): value}

    return Source(Variables)()


def _read_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        section, _, key = variable.removeprefix(PREFIX).lower().partition("__")
        # Without a key it is the whole section, or the list of folders, as JSON; others of ours are no settings.
        if not key and section not in Settings.model_fields:
            continue
        try:
            tree = _variable_tree(variable, environ[variable])
        except Exception as error:
            raise SettingsInvalid(f"{variable}: {error}") from error
        yield variable, tree or {section: {key: environ[variable]}}


def _origin(origins: Mapping[str, str], name: str) -> str:
    """Return where a value, one of its parts, or the first value of an unknown section came from."""
    if name in origins:
        return origins[name]
    near = (key for key in origins if name.startswith(f"{key}.") or key.startswith(f"{name}."))
    return origins.get(next(near, ""), "unknown name")


def _merge(merged: dict[str, Any], origins: dict[str, str], tree: Mapping[str, Any], origin: str) -> None:
    for section, values in tree.items():
        if isinstance(values, Mapping):
            known = merged.setdefault(section, {})
            if not isinstance(known, dict):
                raise SettingsInvalid(f"{section}: a section, not a value ({origins[section]})")
            known.update(values)
            origins.update({f"{section}.{key}": origin for key in values})
        else:
            merged[section] = values
            origins[section] = origin


def _nested(name: str, value: Any) -> dict[str, Any]:
    section, dot, key = name.partition(".")
    if not dot or not key:
        raise SettingsInvalid(f"{name}: names are section.key")
    return {section: {key: value}}


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        plain = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    # 1_000 and 2026-11-22 are values in TOML, and text where text is wanted.
    wants_text = any(field.annotation in {str, Path} for known, field in fields() if known == name)
    return value if wants_text and not isinstance(plain, str) else plain


def _anchored(settings: Settings, base: Path) -> Settings:
    """Make every path absolute, so that a worker elsewhere means the same file."""
    intake = settings.intake
    return settings.model_copy(
        update={
            "intake": intake.model_copy(
                update={"inbox": [base / path for path in intake.inbox], "quarantine": base / intake.quarantine}
            ),
            "output": settings.output.model_copy(update={"folder": base / settings.output.folder}),
            "jobs": settings.jobs.model_copy(update={"state": base / settings.jobs.state}),
        }
    )
