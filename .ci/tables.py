"""Write the tables of settings and errors into the documentation. A test fails when they are out of date."""

import sys
from pathlib import Path

from wsi_denoise import errors, settings

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- made by .ci/tables.py -->", "<!-- end -->"


def settings_table() -> str:
    allowed = settings.allowed_values()
    rows = [
        f"| `{name}` | `{default}` | {_cell(allowed[name])} | {_cell(text)} |"
        for name, default, text in settings.table()
    ]
    return "\n".join(["| name | default | allowed | what it is |", "|---|---|---|---|", *rows])


def errors_table() -> str:
    rows = [
        f"| `{error.code}` | {_cell(error.happened)} | {_cell(error.advice)} | {_retried(error)} |"
        for error in errors.every_error()
    ]
    return "\n".join(["| `error_code` | what happened | what to do | retried |", "|---|---|---|---|", *rows])


def _retried(error: type[errors.WsiDenoiseError]) -> str:
    if not error.retry:
        return "no"
    return "until it passes" if error.outlasts else "yes"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


TABLES = {"it/settings.md": settings_table, "lab/errors.md": errors_table}


def filled(text: str, table: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    stale = []
    for name, table in TABLES.items():
        file = DOCS / name
        old = file.read_text("utf-8")
        new = filled(old, table())
        if new != old:
            stale.append(name)
            if "--check" not in sys.argv:
                file.write_text(new, "utf-8")
    if stale:
        print(f"{'out of date' if '--check' in sys.argv else 'written'}: {', '.join(stale)}")
    return bool(stale) and "--check" in sys.argv


if __name__ == "__main__":
    sys.exit(main())
