"""Who may import whom (DESIGN 4), read from the source; and no circles."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
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

GROUND = {"root", "errors", "settings"}
#: What each part may import besides itself.
ALLOWED = {
    "root": set(),
    "errors": set(),
    "names": set(),
    "secrecy": set(),
    "memory": set(),
    "conditions": {"errors"},
    "settings": {"errors"},
    "places": set(),
    "slide": GROUND,
    "network": GROUND | {"memory"},
    "quality": GROUND,
    "jobs": GROUND | {"secrecy", "places"},
    "intake": GROUND | {"jobs", "names", "places"},
    "space": GROUND | {"jobs", "conditions"},
    "access": GROUND,
    "folders": GROUND | {"jobs", "places", "access", "space", "conditions"},
    "hours": GROUND | {"jobs"},
    "retention": GROUND | {"jobs", "intake", "places"},
    "pauses": GROUND | {"jobs", "space", "hours"},
    "processing": GROUND | {"slide", "network", "quality", "sample", "space", "access", "memory"},
    "query": GROUND | {"jobs"},
    "notify": GROUND | {"jobs"},
    "listening": GROUND,
    "logs": GROUND | {"names"},
    "outputs": GROUND | {"jobs", "slide", "network"},
    "sample": GROUND,
    "doctor": GROUND | {"jobs", "network", "listening", "folders"},
    # Slides too: crops to train on come from the reader and the tissue mask that the daemon uses.
    "training": GROUND | {"network", "quality", "slide"},
    "migrations": GROUND | {"jobs"},
    "dashboard": GROUND
    | {"jobs", "slide", "quality", "network", "intake", "query", "listening", "logs", "doctor", "secrecy", "space"},
}
#: These sit on top of everything in wsi_denoise, in this order.
TOP = ("recovery", "heartbeat", "runner", "daemon", "foreground", "commands", "cli")
LATE_ONLY = ("root", "errors", "settings", "jobs", "intake", "query", "notify", "listening", "logs", "commands", "cli")


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
    return head if head != "wsi_denoise" else rest.partition(".")[0] or "root"


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


def test_every_part_has_its_rule():
    assert {part_of(module) for module in MODULES} <= {*ALLOWED, *TOP}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_part_may(module):
    part = part_of(module)
    file = MODULES[module]
    allowed = {*ALLOWED, *TOP[: TOP.index(part) + 1]} - {"dashboard", "training"} if part in TOP else ALLOWED[part]
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for name, line in imports(file, late=True)
        if name.partition(".")[0] in PACKAGES and part_of(name) not in {*allowed, part}
    ]
    assert not wrong


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) in LATE_ONLY))
def test_no_heavy_library_is_imported_where_answers_must_be_quick(module):
    wrong = [name for name, _ in imports(MODULES[module], late=False) if name.partition(".")[0] in HEAVY]
    assert not wrong


def test_no_circles():
    graph = {
        module: {name for name, _ in imports(file, late=False) if name in MODULES and name != module}
        for module, file in MODULES.items()
    }
    # A package's own __init__ is imported before each of its modules, which is no circle.
    order = TopologicalSorter(graph).static_order()
    assert set(order) == set(MODULES)


def test_the_rules_can_fail(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import torch\nfrom wsi_denoise import jobs\n\ndef f():\n    from wsi_denoise.slide import reader\n"
    )
    assert [name for name, _ in imports(file, late=False)] == ["torch", "wsi_denoise.jobs"]
    assert "wsi_denoise.slide.reader" in [name for name, _ in imports(file, late=True)]
