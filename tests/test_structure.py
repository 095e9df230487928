"""The house: wings in one order, no circle, no borrowed private names, and a line of explanation for every room."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mcloop"
CONFIGS = ROOT.parent / "configs"

# Each floor may import from the floors below it, and nothing from its own floor or above.
FLOORS = (
    {"errors", "laws", "progress", "results"},
    {"checks", "guard", "nets", "report", "storage", "types"},
    {"random", "regimes"},
    {"data", "memory"},
    {"metrics", "models"},
    {"correctors", "drivers", "exact", "own"},
    {"certificates", "loop"},
    {"validation"},
    {"experiment"},
    {"planner", "studies"},
    {"cli"},
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "configs" not in path.relative_to(ROOT).parts
}
WINGS = sorted(path.parent for path in MODULES.values() if path.name == "__init__.py" and path.parent != ROOT)


def imported(path):
    """(module of this library, name taken from it or "") for every import in a file but those for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {inner for node in typed for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "mcloop":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner, "") if inner in MODULES else (node.module, alias.name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "mcloop")
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} imports relatively"


def room(path):
    """A wing, or a file at the root."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_room_has_a_floor():
    rooms = {room(path) for path in MODULES.values()} - {"__init__"}
    assert rooms == set(LEVEL)


def test_imports_between_rooms_run_downwards():
    upward = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in MODULES.values()
        if path != ROOT / "__init__.py"
        for module, _ in imported(path)
        if module != "mcloop" and room(MODULES[module]) != room(path) and LEVEL[room(MODULES[module])] >= LEVEL[room(path)]
    ]
    assert not upward


def test_no_floor_is_idle():
    """Every room but those of the lowest floor needs the floor right below it: the order is the real one, and not a wish."""
    below = {name: set() for name in LEVEL}
    for path in MODULES.values():
        if path != ROOT / "__init__.py":
            below[room(path)] |= {LEVEL[room(MODULES[module])] for module, _ in imported(path) if module != "mcloop"} - {
                LEVEL[room(path)]
            }
    for lower, upper in pairwise(range(len(FLOORS))):
        assert any(lower in below[name] for name in FLOORS[upper]), FLOORS[upper]


def test_files_of_a_room_import_one_another_without_a_circle():
    uses = {name: {m for m, _ in imported(path) if m in MODULES} - {name} for name, path in MODULES.items()}
    # a wing's own front (`__init__`) passes names on; the circle of a file and its front is that of any package
    uses = {name: {m for m in found if MODULES[m].name != "__init__.py"} for name, found in uses.items() if name.count(".") > 1}
    while free := [name for name, found in uses.items() if not found & set(uses)]:
        for name in free:
            del uses[name]
    assert not uses


@pytest.mark.parametrize("folder", [ROOT, CONFIGS], ids=["library", "configs"])
def test_nobody_takes_what_is_private_to_another_file(folder):
    taken = [
        f"{path.relative_to(folder)} takes {module}.{name}"
        for path in sorted(folder.rglob("*.py"))
        for module, name in imported(path)
        if any(part.startswith("_") for part in (*module.split("."), name))
    ]
    assert not taken


def test_every_file_says_what_it_is_for_and_is_short():
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(text)) or ""
        assert len(said.split("\n")[0].split()) >= 4, f"the first line of {path} explains nothing"
        assert text.count("\n") <= 300, f"{path} has more than 300 lines"


def test_a_wing_is_explained_by_one_line():
    for wing in WINGS:
        said = ast.get_docstring(ast.parse((wing / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "\n" not in said and said.endswith("."), wing


def test_functions_fit_a_screen_or_two():
    long = []
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := node.end_lineno - node.lineno + 1) > 80:
                long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long


def test_the_public_names_are_few_and_there():
    import mcloop

    assert len(mcloop.__all__) <= 30
    assert all(getattr(mcloop, name) is not None for name in mcloop.__all__)
