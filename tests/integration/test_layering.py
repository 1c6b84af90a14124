"""Heavy libraries are imported late. The layers are contracts of import-linter in pyproject.toml."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("wsi_denoise", "dashboard", "training", "migrations")
HEAVY = {
    "torch",
    "tiatoolbox",
    "openslide",
    "dask",
    "distributed",
    "tifffile",
    "imagecodecs",
    "skimage",
    "scipy",
    "zarr",
}

#: Parts of `wsi_denoise` that commands import before they answer. They import no heavy library at module level.
QUICK = ("__init__", "cli", "errors", "settings", "system", "jobs", "intake")


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sources()}


def part_of(module: str) -> str:
    """The part of the layout that a module belongs to."""
    head, _, rest = module.partition(".")
    return head if head != "wsi_denoise" else rest.partition(".")[0] or "__init__"


def imports(file: Path, *, late: bool) -> Iterator[tuple[str, int]]:
    """Modules that a file imports; with `late`, also inside functions and for type checkers only."""
    tree = ast.parse(file.read_text("utf-8"))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(outer)
        for node in ast.walk(outer)
        if node is not outer
    }
    for node in ast.walk(tree):
        if id(node) in inside and not late:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} is a relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule if submodule in MODULES else node.module), node.lineno


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) in QUICK))
def test_no_heavy_library_is_imported_where_answers_must_be_quick(module):
    wrong = [name for name, _ in imports(MODULES[module], late=False) if name.partition(".")[0] in HEAVY]
    assert not wrong


def test_the_rules_can_fail(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import torch\nfrom wsi_denoise import jobs\n\ndef f():\n    from wsi_denoise.slide import reader\n"
    )
    assert [name for name, _ in imports(file, late=False)] == ["torch", "wsi_denoise.jobs"]
    assert "wsi_denoise.slide.reader" in [name for name, _ in imports(file, late=True)]
