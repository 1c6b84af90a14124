"""Check the prose of the repository against the style guide; part of `make lint`.

Reads the documentation, docstrings, comments and message strings. Prints each phrase that the style guide rules out,
with its replacement, and each misspelling that codespell finds.

    python .ci/prose.py            # check
    python .ci/prose.py docs       # list every finding below a path, also of paths that are not clean yet
    python .ci/prose.py --update   # lower the counts of NOT_YET_CLEAN to what is left
"""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Paths whose prose is being cleaned, with the number of findings that are left. A path that is not listed has none.
# A count is an upper limit and only falls: `--update` lowers it and never raises it.
NOT_YET_CLEAN: dict[str, int] = json.loads((ROOT / ".ci" / "prose.json").read_text("utf-8"))

_PEOPLE = "user|users|operator|operators|client|clients|caller|callers|reader|readers|author|authors|engineer|engineers"
RULES = {
    r"told": "reported, logged, notified, passed, distinguished",
    r"(somebody|someone|nobody|no one|whoever|a person|persons)": "user, client, worker, operator, caller",
    rf"(?<!{')(?<!'.join(f'{word} ' for word in _PEOPLE.split('|'))})who": "user, client, worker, operator, caller",
    r"(for )?so long(?! as)|how long": "for N seconds, the timeout",
    r"look(s|ed|ing)? (at|after)|(a|two|one) looks?|is looked": "checks, polls; a check",
    r"(go|goes|going|gone|went) on": "continues, resumes",
    r"all the same": "anyway",
    r"by (itself|themselves)": "automatically",
    r"anew": "again",
    r"in vain": "without effect",
    r"for ever|forever": "indefinitely",
    r"meanwhile": "(delete)",
    r"there (is|was|are|were) none": "is omitted, is not written",
    r"(none|nothing) is invented": "is omitted, is not written",
    r"hand(s|ed|ing)? out": "resubmits, submits",
    r"what lies": "files in ...",
    r"(?<!there )(is|are) no (?!longer|more|later|less|greater|worse)": "'is rejected', say",
    r"the record": "the job database",
}
# "The page" means the dashboard here, and a page elsewhere.
WITHIN = {"wsi_denoise": {r"the page": "the dashboard"}, "migrations": {r"the page": "the dashboard"}}

SKIPPED = (
    ".git/",
    ".venv/",
    "build/",
    "dist/",
    "site/",
    "CHANGELOG.md",
    "LICENSE",
    ".ci/prose.py",
    "tests/integration/test_prose.py",
)
PROSE = {".md", ".toml", ".yaml", ".yml", ".js", ".css", ".html", ".cff", ""}


def rules_of(path: str) -> list[tuple[re.Pattern[str], str]]:
    rules = RULES | WITHIN.get(path.partition("/")[0], {})
    return [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), instead) for pattern, instead in rules.items()]


def files() -> list[str]:
    command = [shutil.which("git") or "git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [
        path
        for path in listed
        if Path(path).suffix in PROSE | {".py"} and not path.startswith(SKIPPED) and (ROOT / path).is_file()
    ]


def python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each comment and of each string of at least three words."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    parts = set()
    for node in ast.walk(ast.parse(text)):  # an f-string comes before its parts
        said = ""
        if isinstance(node, ast.JoinedStr):
            parts.update(map(id, node.values))
            said = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            said = node.value
        if len(said.split()) > 2:
            yield node.lineno, said


def markdown_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) without code, addresses of links, and generated tables."""
    code = generated = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif line.startswith("<!-- "):
            generated = line.startswith("<!-- made")
        elif not code and not generated:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", " ", line)


def findings(path: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, phrase, what to write instead) of a file."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".py"):
        prose: Iterator[tuple[int, str]] = python_prose(text)
    elif path.endswith(".md"):
        prose = markdown_prose(text)
    else:
        prose = iter(enumerate(text.splitlines(), 1))
    rules = rules_of(path)
    for number, piece in prose:
        flat = re.sub(r"\s+", " ", re.sub(r"``[^`]*``", " ", piece))
        for pattern, instead in rules:
            for found in pattern.finditer(flat):
                yield number, found[0], instead


def owner(path: str) -> str | None:
    """Return the longest entry of NOT_YET_CLEAN that holds a path."""
    holding = [entry for entry in NOT_YET_CLEAN if path == entry or path.startswith(f"{entry}/")]
    return max(holding, key=len, default=None)


def misspellings(paths: list[str]) -> list[str]:
    program = [sys.executable, "-m", "codespell_lib", "--toml", "pyproject.toml", *paths]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        sys.exit(f"codespell did not run: {done.stderr.strip()}")
    return done.stdout.splitlines()


def update(counts: Counter[str]) -> None:
    left = {entry: min(limit, counts[entry]) for entry, limit in NOT_YET_CLEAN.items()}
    kept = {entry: count for entry, count in sorted(left.items()) if count}
    (ROOT / ".ci" / "prose.json").write_text(json.dumps(kept, indent=2) + "\n", "utf-8")


def main(arguments: list[str]) -> int:
    below = [argument for argument in arguments if not argument.startswith("-")]
    paths = [
        path for path in files() if not below or any(path == b or path.startswith(f"{b.rstrip('/')}/") for b in below)
    ]
    counts: Counter[str] = Counter()
    lines: dict[str, list[str]] = {}
    for path in paths:
        entry = owner(path) or path
        for number, phrase, instead in findings(path):
            counts[entry] += 1
            lines.setdefault(entry, []).append(f'{path}:{number}: "{phrase}"; write: {instead}')
    if "--update" in arguments:
        update(counts)
        return 0
    shown = 0
    for entry, found in lines.items():
        limit = NOT_YET_CLEAN.get(entry, 0)
        if below or counts[entry] > limit:
            print("\n".join(found))
            if limit:
                print(f"{entry}: {counts[entry]} findings; at most {limit} are left to clean")
            shown += counts[entry] > limit
    spelling = misspellings(paths)
    if spelling:
        print("\n".join(spelling))
    return 1 if shown or spelling else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
