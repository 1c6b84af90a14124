"""What the documentation says against what the code does."""

import importlib.util
import re
from pathlib import Path

import click
import pytest
import typer

from wsi_denoise import cli, errors, settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def tables():
    specification = importlib.util.spec_from_file_location("tables", ROOT / ".ci" / "tables.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def commands():
    """(name as typed, command) of every command."""
    group = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", made) for inner, made in command.commands.items())
        else:
            yield name, command


def section(name):
    """The section of docs/cli.md about a command."""
    text = (DOCS / "cli.md").read_text("utf-8")
    found = re.search(rf"^## `wsi-denoise {name}(?: [^`]*)?`$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found and found[1]


def common():
    return (DOCS / "cli.md").read_text("utf-8").partition("\n## ")[0]


@pytest.mark.parametrize("name", ["settings.md", "errors.md"])
def test_a_table_is_what_the_code_says(name):
    made = tables()
    text = (DOCS / name).read_text("utf-8")
    assert made.filled(text, made.TABLES[name]()) == text, "run: .venv/bin/python .ci/tables.py"


def test_the_tables_have_every_setting_and_every_error():
    made = tables()
    for name, _, description in settings.table():
        assert f"| `{name}` |" in made.settings_table()
        assert description, f"{name} has no description"
    codes = [error.code for error in errors.every_error()]
    assert len(codes) == len(set(codes))
    for code in codes:
        assert f"| `{code}` |" in made.errors_table()


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_a_command_and_its_options_are_documented(name, command):
    about = section(name)
    assert about, f"docs/cli.md has no section about {name}"
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            (option,) = parameter.opts
            assert f"`{option}" in about + common(), f"{option} of {name} is not documented"
            assert parameter.help, f"{option} of {name} has no help"


def test_no_command_is_documented_that_does_not_exist():
    text = (DOCS / "cli.md").read_text("utf-8")
    known = {name for name, _ in commands()}
    for heading in re.findall(r"^## `wsi-denoise ([a-z ]+?)(?: [A-Z[].*)?`$", text, re.MULTILINE):
        assert heading in known


@pytest.mark.parametrize("file", sorted([*DOCS.glob("*.md"), ROOT / "README.md"]), ids=lambda file: file.name)
def test_links_lead_somewhere(file):
    for target in LINK.findall(file.read_text("utf-8")):
        assert (file.parent / target).exists(), f"{file.name} links to {target}"


def test_every_page_is_in_the_index():
    linked = set(LINK.findall((DOCS / "index.md").read_text("utf-8")))
    assert {file.name for file in DOCS.glob("*.md")} - {"index.md"} <= linked


def test_settings_and_commands_that_messages_name_exist():
    """An advice that names a setting or a command which is not there helps nobody."""
    names = {name for name, _, _ in settings.table()}
    sections = {name.partition(".")[0] for name in names}
    known = {name for name, _ in commands()}
    for error in errors.every_error():
        text = f"{error.happened} {error.advice}"
        for name in re.findall(r"\b([a-z]+\.[a-z_]+)\b", text):
            if name.partition(".")[0] in sections:
                assert name in names, f"{error.code} names {name}"
        for name in re.findall(r"wsi-denoise ((?:db )?[a-z]+)", text):
            assert name in known, f"{error.code} names wsi-denoise {name}"
