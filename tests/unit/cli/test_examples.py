"""Help, examples, summaries and completion of the command line, and what `doctor` says about a fresh folder."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from dashboard.viewer import openseadragon
from wsi_denoise import doctor, settings
from wsi_denoise.cli import app, examples


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    code = app.run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def answer(capsys, *arguments):
    """Exit code and the JSON that a command prints."""
    code, out, _ = call(capsys, *arguments, "--json")
    return code, json.loads(out)


def test_models_is_one_line_for_each_preset_and_a_name_gives_its_table(capsys):
    names = [card["name"] for card in answer(capsys, "models")[1]["presets"]]
    code, out, _ = call(capsys, "models")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["PRESET", *names]
    code, out, _ = call(capsys, "models", "paper")
    assert code == 0
    assert out.startswith("paper  ")
    assert len(out.splitlines()) > 10
    assert "DENOISED, F1" in out
    assert [card["name"] for card in answer(capsys, "models", "paper")[1]["presets"]] == ["paper"]
    code, _, err = call(capsys, "models", "no-such-preset")
    assert code == 2
    assert "no-such-preset" in err


def test_doctor_does_not_warn_about_a_fresh_folder_but_about_a_missing_named_inbox(tmp_path):
    loaded = settings.load(folder=tmp_path, environ={})
    assert [check.state for check in _inboxes(loaded)] == ["ok"]
    loaded = settings.load(folder=tmp_path, environ={}, overrides={"intake.inbox": [str(tmp_path / "share")]})
    (check,) = _inboxes(loaded)
    assert check.state == "warning"
    assert "intake.inbox" in check.text
    assert not list(tmp_path.iterdir())


def _inboxes(loaded):
    return [check for check in doctor.folder_checks(loaded) if check.name == "inbox"]


def test_doctor_names_a_missing_viewer_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(openseadragon, "present", lambda: False)
    (check,) = doctor.viewer_checks()
    assert (check.name, check.state) == ("viewer", "warning")
    assert f"python {openseadragon.__file__}" in check.text


@pytest.mark.parametrize("path", [(), ("db",)])
def test_no_summary_in_the_help_is_cut_off(capsys, path):
    for flag in ("-h", "--help"):
        code, out, _ = call(capsys, *path, flag)
        assert code == 0
        commands = out.partition("Commands:")[2].partition("\n\n")[0]
        assert len(commands.splitlines()) >= 4
        assert "..." not in commands


def _every_command():
    group = typer.main.get_command(app.app)
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", made) for inner, made in command.commands.items())
        else:
            yield name, command


@pytest.mark.parametrize(("name", "command"), list(_every_command()), ids=[name for name, _ in _every_command()])
def test_the_examples_of_a_command_are_in_its_help_and_parse(capsys, name, command):
    code, out, _ = call(capsys, *name.split(), "-h")
    assert code == 0
    for example in examples.EXAMPLES[name]:
        assert f"\n    {example}\n" in out
        program, *arguments = shlex.split(example)
        assert program == "wsi-denoise"
        assert arguments[: len(name.split())] == name.split()
        command.make_context(name, arguments[len(name.split()) :])  # raises on wrong usage


def test_an_unknown_command_is_corrected_once(capsys):
    code, _, err = call(capsys, "modls")
    assert code == 2
    assert err.count("Did you mean") == 1
    assert "?." not in err


def test_the_shell_completes_commands_and_options():
    program = str(Path(sys.executable).with_name("wsi-denoise"))
    for typed, offered in (("wsi-denoise mod", "models"), ("wsi-denoise jobs --verd", "--verdict")):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
        variables = {**os.environ, "_WSI_DENOISE_COMPLETE": "complete_bash", **words}
        done = subprocess.run([program], env=variables, capture_output=True, text=True, check=False)
        assert offered in done.stdout.split(), done.stderr
