"""Sources of settings: defaults, ``wsi-denoise.toml``, variables, command-line options. Later ones have priority.

Names are ``section.key`` everywhere. Relative paths are relative to the working directory, or to the folder of the file
in ``--config``.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError

from wsi_denoise.errors import SettingsInvalid
from wsi_denoise.settings import combinations, messages
from wsi_denoise.settings.model import Settings, fields, first_fault, names

FILE_NAME = "wsi-denoise.toml"
PREFIX = "WSI_DENOISE_"

TEST_VARIABLES = frozenset(f"{PREFIX}{name}" for name in ("BROWSER", "LONG", "PATIENCE", "SHARED", "TEST_EXAMPLES"))
"""Variables of this program's tests. Every other variable with the prefix must be a setting."""

_OF_KUBERNETES = re.compile(r"SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|NAME|ENV_\w+")
"""Variables, without the prefix, that Kubernetes and Docker set for containers beside a service named wsi-denoise."""


@dataclass(frozen=True)
class Loaded:
    """Settings and the origin of each value.

    Parameters
    ----------
    origins : dict of str to str
        From ``section.key`` to ``default``, a file's path, a variable's name, or ``flag``.
    """

    settings: Settings
    origins: dict[str, str]


REMOVED = {
    "compute.in_flight": ("0", "three tasks per thread are submitted; delete this setting"),
    "intake.move": ("false", "originals are never moved; delete this setting"),
    "output.owner": ("", "outputs belong to the user who runs the daemon; delete this setting and run it as that user"),
}
"""Names of settings that were removed, with their old default and what to do."""


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Merge defaults, file, variables and command-line options.

    Parameters
    ----------
    config : Path, optional
        Settings file; by default ``wsi-denoise.toml`` in `folder`, if it exists.
    overrides : mapping of str to object, optional
        Command-line options, by ``section.key``. Strings are parsed as TOML values if possible.
    folder : Path, optional
        Base of relative paths; by default the folder of `config`, or the working directory.
    environ : mapping, optional
        The process's environment by default.

    Raises
    ------
    SettingsInvalid
        For an unreadable file, an unknown name, an invalid value, or values that contradict each other.
    """
    base = folder or (config.parent if config else Path.cwd())
    merged: dict[str, Any] = {}
    origins = {name: "default" for name, _ in fields()}
    for origin, tree in _trees(config, base, os.environ if environ is None else environ, overrides or {}):
        _merge(merged, origins, tree, origin)
    _drop_removed(merged, origins)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        name, fault = first_fault(error)
        origin = _origin(origins, name)
        raise SettingsInvalid(f"{fault} ({origin})" if origin else fault) from error
    settings = _anchored(settings, base.absolute())
    for name, wrong in combinations.contradictions(settings):
        raise SettingsInvalid(f"{name}: {wrong} ({origins[name]})")
    return Loaded(settings, origins)


def _trees(
    config: Path | None, base: Path, environ: Mapping[str, str], overrides: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (origin, tree of settings) of every source, in the order of their priority."""
    file = config or base / FILE_NAME
    # A broken link is an error: the program must not continue with the defaults.
    if config or os.path.lexists(file):
        yield str(file), _read_toml(file)
    yield from _read_environment(environ)
    for name, value in overrides.items():
        yield "flag", _nested(name, _plain(name, value))


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        # utf-8-sig, because some editors write a byte order mark.
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsInvalid(f"{file} cannot be read: it is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        where = f"{file}, a link to {os.path.realpath(file)}," if file.is_symlink() else str(file)
        raise SettingsInvalid(f"{where} cannot be read ({error.strerror})") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{file}: {error}") from error
    _check_spelling(tree, text, file)
    return tree


def _check_spelling(tree: Mapping[str, Any], text: str, file: Path) -> None:
    """Reject an unquoted number for a text setting if its text would change: 0o17, 1_000, 1e5.

    Raises
    ------
    SettingsInvalid
    """
    for name, field in fields():
        section, _, key = name.partition(".")
        values = tree.get(section)
        value = values.get(key) if key and isinstance(values, Mapping) else None
        if field.annotation is not str or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name == "output.mode":
            continue  # which rejects all numbers
        written = re.compile(rf"""\b{key}["']?\s*=\s*{re.escape(str(value))}(?![\w.])""")
        if not written.search(text):
            raise SettingsInvalid(f"{name}: a number that is read as {_quoted(name, value)}; put it in quotes ({file})")


def _quoted(name: str, value: object) -> str:
    return "another text" if name in messages.SECRET else f'"{value}"'


def _read_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (variable, tree of settings) for every variable with the prefix.

    Raises
    ------
    SettingsInvalid
        For a variable of an unknown setting, and for invalid JSON as the value of a list.
    """
    known = dict(fields())
    for variable in sorted(environ):
        rest = variable.upper().removeprefix(PREFIX)
        if rest == variable.upper() or variable in TEST_VARIABLES or _is_of_a_container(rest, environ[variable]):
            continue
        yield variable, _read_variable(variable, rest, environ[variable], known)


def _read_variable(variable: str, rest: str, text: str, known: Mapping[str, Any]) -> dict[str, Any]:
    section, _, key = rest.lower().partition("__")
    name = f"{section}.{key}" if key else section
    if name in REMOVED:
        return {section: {key: text}}
    if name not in known and (key or section not in Settings.model_fields):
        raise SettingsInvalid(_unknown_variable(variable, name, known))
    value: Any = text
    if not key or get_origin(known[name].annotation) is list:
        value = _from_json(variable, text, messages.allowed(known[name]) if name in known else "an object")
    return {section: {key: value} if key else value}


def _is_of_a_container(rest: str, value: str) -> bool:
    return _OF_KUBERNETES.fullmatch(rest) is not None or (rest == "PORT" and "://" in value)


def _unknown_variable(variable: str, name: str, known: Mapping[str, Any]) -> str:
    # With a single underscore between section and key, the name has no separator.
    near = messages.nearest(name.replace("_", ".", 1) if "." not in name else name, known)
    near = near or messages.nearest(name.rpartition(".")[2], known)
    suggestion = "names are WSI_DENOISE_SECTION__KEY, with two underscores between section and key"
    if near:
        suggestion = f"the nearest is {variable_of(near)}; allowed: {messages.allowed(known[near])}"
    return f"{variable}: no setting has this name; {suggestion}"


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper().replace(".", "__")


def _from_json(variable: str, text: str, allowed: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsInvalid(f"{variable}: not JSON ({error}); allowed as JSON: {allowed}") from error


def _origin(origins: Mapping[str, str], name: str) -> str:
    """Return the origin of a value, of one of its parts, or of the first value of an unknown section."""
    if name in origins:
        return origins[name]
    near = (key for key in origins if name.startswith(f"{key}.") or key.startswith(f"{name}."))
    return origins.get(next(near, ""), "")


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


def _drop_removed(merged: dict[str, Any], origins: dict[str, str]) -> None:
    """Accept a removed setting with its old default, and reject any other value.

    Raises
    ------
    SettingsInvalid
    """
    for name, (default, reason) in REMOVED.items():
        section, _, key = name.partition(".")
        values = merged.get(section)
        if not isinstance(values, dict) or key not in values:
            continue
        if str(values.pop(key)).lower() != default:
            raise SettingsInvalid(f"{name}: removed in version 0.2: {reason} ({origins[name]})")
        del origins[name]


def _nested(name: str, value: Any) -> dict[str, Any]:
    section, dot, key = name.partition(".")
    if name == "folders":
        return {name: value}
    if not dot or not key:
        raise SettingsInvalid(f"{name}: names are section.key{messages.nearest_of(name, names())}")
    return {section: {key: value}}


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        plain = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    # 1_000 and 2026-11-22 are TOML values, but text for a text setting.
    wants_text = any(field.annotation in {str, Path} for known, field in fields() if known == name)
    return value if wants_text and not isinstance(plain, str) else plain


def _anchored(settings: Settings, base: Path) -> Settings:
    """Make every path absolute, so that it is valid for workers with another working directory."""
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
