"""The command line: registration of commands, exit codes and error messages.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted. An error is one message on standard error, never
a traceback. With ``--json``, standard output also has ``{"error_code", "error"}``.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import click
import typer

from wsi_denoise import NOTICE, __version__
from wsi_denoise.cli import examples, jobs, options, serve, slides, streams, system
from wsi_denoise.errors import InternalError, NoSuchPreset, UsageError, WsiDenoiseError

app = typer.Typer(
    name="wsi-denoise",
    no_args_is_help=True,
    context_settings=options.HELP_NAMES,
    suggest_commands=False,  # click suggests commands itself
    rich_markup_mode=None,  # plain help takes half the time, and is readable in a file
    pretty_exceptions_enable=False,
    epilog=f"All files are kept in the working directory unless the settings say otherwise. {NOTICE.capitalize()}.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"wsi-denoise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Denoise whole-slide images dropped into a folder, with evidence per slide."""


_COMMANDS: tuple[Callable[..., int | None], ...] = (
    serve.up,
    serve.watch,
    slides.run,
    serve.dashboard,
    jobs.jobs,
    jobs.job,
    jobs.retry,
    jobs.cancel,
    jobs.priority,
    jobs.pause,
    jobs.resume,
    system.models,
    slides.bench,
    system.doctor,
    system.confirm,
    slides.sample,
    slides.verify,
    system.config,
)
for _command in _COMMANDS:
    # The argument of priority may be negative, and must not be parsed as an option.
    app.command(
        context_settings={**options.HELP_NAMES, "ignore_unknown_options": _command is jobs.priority},
        epilog=examples.epilog(_command.__name__),
    )(_command)
app.add_typer(system.db, name="db", context_settings=options.HELP_NAMES)


def main() -> None:
    """Run the command line and exit."""
    # Garbage collection during imports frees nothing, and takes a tenth of the time of a short command.
    gc.set_threshold(50_000)
    # Child processes (worker processes and multiprocessing's own) import no module from the working folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    streams.prepare()
    code = run(sys.argv[1:])
    error = streams.stdout_error()
    if error is not None and not isinstance(error, BrokenPipeError):  # `wsi-denoise jobs | head` is valid
        print(f"wsi-denoise: Standard output cannot be written: {error.strerror}.", file=sys.stderr)
        code = code or 1
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name.
    """
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="wsi-denoise", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except SystemExit as error:
        # Typer ends the program if the reader of standard output has closed it.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        streams.discard_stdout()
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - users get a message, never a traceback
        if isinstance(error, OSError) and streams.stdout_error() is not None:
            return 0  # main reports it
        return _fail(arguments, *_failure(error))
    return code if isinstance(code, int) else 0


def _failure(error: BaseException) -> tuple[str, str, int]:
    """Return the error code, the message and the exit code of an exception."""
    if isinstance(error, WsiDenoiseError):
        return error.code, str(error), 2 if isinstance(error, UsageError | NoSuchPreset) else 1
    if isinstance(error, click.ClickException):
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "wsi-denoise"
        return UsageError.code, f"{_sentence(error.format_message())} See {where} --help.", 2
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted", "Interrupted.", 130
    return InternalError.code, str(_mistake(error)), 1


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _mistake(error: BaseException) -> InternalError:
    """Return the error for an unforeseen exception, and log its traceback if logging is set up."""
    if logging.getLogger().handlers:
        logging.getLogger(__name__).error("unforeseen", exc_info=error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return InternalError(f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})")


def _fail(arguments: Sequence[str], error_code: str, text: str, code: int) -> int:
    if "--json" in arguments:
        with suppress(OSError):  # main reports it
            print(json.dumps({"error_code": error_code, "error": text}))
    print(f"wsi-denoise: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
