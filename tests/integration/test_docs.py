"""The documentation agrees with the program, its links resolve, and its pages stay short."""

import importlib.util
import re
from pathlib import Path

import click
import pytest
import typer
import yaml

from wsi_denoise import __version__, errors, settings
from wsi_denoise.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FOR_USERS = [page for page in PAGES if "evidence" not in page.parts]
# Entries of the changelog link to the pages of their time.
AT_THE_ROOT = sorted(page for page in ROOT.glob("*.md") if page.name != "CHANGELOG.md")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


def script(name):
    specification = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def commands():
    """(name as typed, command) of every command."""
    group = typer.main.get_command(app.app)
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", made) for inner, made in command.commands.items())
        else:
            yield name, command


def command_page():
    return (DOCS / "programs" / "commands.md").read_text("utf-8")


def section(name):
    """The section of the page of commands about a command."""
    found = re.search(
        rf"^## `wsi-denoise {name}(?: [^`]*)?`$(.*?)(?=^## |\Z)", command_page(), re.MULTILINE | re.DOTALL
    )
    return found and found[1]


def words(text):
    """Words of a page: what stands between spaces and has a letter or digit."""
    return sum(1 for word in text.split() if re.search(r"\w", word))


def anchors(text):
    """Anchors of the headings of a page, as the site makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def of_page(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("name", ["it/settings.md", "lab/errors.md"])
def test_a_table_is_what_the_code_says(name):
    made = script("tables")
    text = (DOCS / name).read_text("utf-8")
    assert made.filled(text, made.TABLES[name]()) == text, "run: .venv/bin/python .ci/tables.py"


def test_the_tables_have_every_setting_and_every_error():
    made = script("tables")
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
    assert about, f"the page of commands has no section about {name}"
    assert command.help
    common = command_page().partition("\n## ")[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            (option,) = parameter.opts
            assert f"`{option}" in about + common, f"{option} of {name} is not documented"
            assert parameter.help, f"{option} of {name} has no help"


def test_no_command_is_documented_that_does_not_exist():
    known = {name for name, _ in commands()}
    for heading in re.findall(r"^## `wsi-denoise ([a-z ]+?)(?: [A-Z[].*)?`$", command_page(), re.MULTILINE):
        assert heading in known


@pytest.mark.parametrize("page", [*PAGES, *AT_THE_ROOT], ids=of_page)
def test_links_resolve(page):
    for target in LINK.findall(page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), f"{of_page(page)} links to {target}"
        if anchor:
            assert anchor in anchors(other.read_text("utf-8")), f"{of_page(page)} links to {target}"


def test_every_page_is_in_the_navigation_of_the_site():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    parts = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert len(parts) == 5
    assert sorted(pages(parts)) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


@pytest.mark.parametrize("page", FOR_USERS, ids=of_page)
def test_a_page_for_users_has_at_most_1200_words(page):
    """Generated tables do not count here: they are as long as the settings and errors are many."""
    written = re.sub(r"<!-- made by .*?<!-- end -->", "", page.read_text("utf-8"), flags=re.DOTALL)
    assert words(written) <= 1200


def test_the_documentation_outside_evidence_has_at_most_16000_words():
    assert sum(words(page.read_text("utf-8")) for page in FOR_USERS) <= 16_000


def test_the_readme_has_at_most_350_words_and_names_the_two_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    assert words(text) <= 350
    assert "make run" in text
    assert "make test" in text


def test_every_picture_is_shown():
    shown = {
        (page.parent / target).resolve()
        for page in [*PAGES, *AT_THE_ROOT]
        for target in LINK.findall(page.read_text("utf-8"))
    }
    assert {picture.resolve() for picture in DOCS.rglob("images/*")} <= shown


def test_settings_and_commands_that_messages_name_exist():
    """A message that names a missing setting or command misleads the user."""
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


@pytest.mark.parametrize("page", FOR_USERS, ids=of_page)
def test_settings_that_a_page_names_exist(page):
    names = {name for name, _, _ in settings.table()}
    sections = {name.partition(".")[0] for name in names if "." in name} - {"folders"}
    for name in re.findall(r"`([a-z]+\.[a-z_]+)(?: = [^`]*)?`", page.read_text("utf-8")):
        if name.partition(".")[0] in sections and name != "jobs.sqlite":  # a file
            assert name in names, f"{of_page(page)} names {name}"


def test_the_settings_that_change_pixels_are_listed():
    text = (DOCS / "it" / "settings.md").read_text("utf-8")
    listed = re.search(r"## Settings that change pixels\n\n(.*?) change the pixels", text, re.DOTALL)[1]
    assert set(re.findall(r"`([^`]+)`", listed)) == set(settings.Settings().pixel_settings())


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_a_guide_names_exist(name):
    text = (ROOT / name).read_text("utf-8")
    named = set(re.findall(r"`([\w.-]+(?:/[\w.-]*)+|[\w.-]+\.(?:md|toml|yml|yaml|json))`", text))
    assert len(named) > 15
    assert {path for path in named if not path.startswith("..") and not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.y*ml")), ids=of_page)
def test_a_file_for_the_hosting_platform_is_yaml(file):
    assert yaml.safe_load(file.read_text("utf-8"))


def test_the_citation_has_the_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2105.00273"


def test_pages_that_the_code_names_exist():
    sources = [
        file
        for folder in ("wsi_denoise", "dashboard", "training", "migrations")
        for file in (ROOT / folder).rglob("*.py")
    ]
    for file in sources:
        for page in re.findall(r"docs/[\w/]+\.md", file.read_text("utf-8")):
            assert (ROOT / page).is_file(), f"{of_page(file)} names {page}"
