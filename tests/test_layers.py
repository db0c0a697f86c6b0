"""The layers of DESIGN.md: imports point down only, heavy libraries have one door, nothing is imported lazily."""

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import refiner_ds

PACKAGE = "refiner_ds"
LAYERS: tuple[tuple[str, ...], ...] = (
    ("", "errors"),
    ("flops", "folders", "loading", "ports", "units"),
    ("chance", "world", "batch", "config", "state", "versions"),
    ("data", "refiners", "checkpoint", "tracking", "supervise"),
    ("train", "evaluate", "bench", "estimate"),
    ("doctor",),
    (
        "cli",
        "__main__",
        "verbs",
        "train.run",
        "train.plan",
        "train.about",
        "train.hooks",
        "train.ready",
        "train.start",
        "train.__main__",
    ),
)
"""Ground, tools, contracts, parts, action, what looks at hosts for it, wiring: the rooms of each. Rooms of a layer
import each other only in wiring."""
WIRING = len(LAYERS) - 1
DOORS = {
    "deepspeed": ("refiner_ds.train.engine",),
    "mlflow": tuple(f"refiner_ds.tracking.{name}" for name in ("ship", "nested", "register", "served")),
}
BY_NAME = (
    "refiner_ds.loading",
    "refiner_ds.train.optimizers",
    "refiner_ds.data.store.opening",
)
"""What may import by name: what loads a verb, or the rank below a warden that stays light; a library that is optional,
and what only readers of a URL shall pay for."""
OPTIONS = ("refiner_ds.config.verbs", "refiner_ds.config.training")


def place_of(module: str) -> tuple[int, str] | None:
    """(layer, room) of a module: the longest room name that it lies in; None where DESIGN.md has no place for it."""
    inner = module.removeprefix(PACKAGE).removeprefix(".")
    rooms = [(layer, room) for layer, names in enumerate(LAYERS) for room in names]
    fitting = [(layer, room) for layer, room in rooms if inner == room or (room and inner.startswith(f"{room}."))]
    return max(fitting, key=lambda place: len(place[1]), default=None)


def imports_of(module: str, modules: Mapping[str, str]) -> Iterator[str]:
    """Full names of the modules that a module imports; a name that is no module stands for the one that holds it."""
    is_package = any(name.startswith(f"{module}.") for name in modules)
    around = [*module.split("."), *([""] if is_package else [])]
    for node in ast.walk(ast.parse(modules[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*around[: -node.level], *([node.module] if node.module else [])])
                if node.level
                else node.module
            )
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base


def import_faults(module: str, imported: str) -> Iterator[str]:
    """What is wrong with one import."""
    for library, doors in DOORS.items():
        if imported.split(".")[0] == library and module not in doors:
            yield f"{module} imports {library}, whose only door is {' or '.join(doors)}"
    if imported.split(".")[0] == "importlib" and imported != "importlib.metadata" and module not in BY_NAME:
        yield f"{module} imports by name, which hides its imports from this test"
    if imported.split(".")[0] != PACKAGE:
        return
    ours, theirs = place_of(module), place_of(imported)
    if ours is None or theirs is None:
        yield f"{module} or {imported} has no layer"
        return
    (layer, room), (other_layer, other_room) = ours, theirs
    if imported.startswith(OPTIONS) and layer != WIRING and room != "config":
        yield f"{module} reads the options of the command line, which only wiring does"
    if layer < other_layer or (layer == other_layer != WIRING and room != other_room):
        yield f"{module} imports {imported}, which is not below it"


def lazy_imports(source: str) -> Iterator[int]:
    """Line numbers of imports inside functions."""
    nodes = ast.walk(ast.parse(source))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    for function in functions:
        yield from (node.lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom))


def faults(modules: Mapping[str, str]) -> list[str]:
    """Everything that breaks the layers, in modules given as source by name."""
    found, graph = [], {}
    for module, source in modules.items():
        imported = sorted(set(imports_of(module, modules)))
        graph[module] = [name for name in imported if name in modules]
        found += [fault for name in imported for fault in import_faults(module, name)]
        found += [f"{module}:{line} imports inside a function" for line in lazy_imports(source)]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append(f"import cycle: {' > '.join(error.args[1])}")
    return found


def modules_of(folder: Path) -> dict[str, str]:
    """Source by module name of every file of a package."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def test_imports_point_down_through_the_layers():
    modules = modules_of(Path(refiner_ds.__file__).parent)
    assert {"refiner_ds", "refiner_ds.data.order", "refiner_ds.train.engine", "refiner_ds.cli"} <= modules.keys()
    assert faults(modules) == []


def test_every_layer_and_door_is_there_to_be_held():
    modules = modules_of(Path(refiner_ds.__file__).parent)
    rooms = {place_of(module) for module in modules}
    assert rooms == {(layer, room) for layer, names in enumerate(LAYERS) for room in names}
    for library, doors in DOORS.items():
        assert all(any(name.split(".")[0] == library for name in imports_of(door, modules)) for door in doors)


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("refiner_ds.data.made", "from refiner_ds.checkpoint import layout", "layout, which is not below"),
        ("refiner_ds.data.made", "from refiner_ds.checkpoint.layout import read", "layout, which is not below"),
        ("refiner_ds.world", "import refiner_ds.chance", "chance, which is not below"),
        ("refiner_ds.errors", "from refiner_ds import world", "world, which is not below"),
        ("refiner_ds.train.made", "from refiner_ds.evaluate.metrics import compare", "metrics, which is not below"),
        ("refiner_ds.train.made", "from refiner_ds.train.run import run", "run, which is not below"),
        ("refiner_ds.evaluate.made", "from refiner_ds.cli import main", "cli, which is not below"),
        ("refiner_ds.train.made", "from refiner_ds.config.training import Train", "only wiring"),
        ("refiner_ds.train.made", "from refiner_ds.config.verbs.models import Repair", "only wiring"),
        ("refiner_ds.train.made", "from refiner_ds.config import verbs", "only wiring"),
        ("refiner_ds.data.made", "import deepspeed.comm", "imports deepspeed, whose only door"),
        ("refiner_ds.verbs.made", "from mlflow import MlflowClient", "imports mlflow, whose only door"),
        ("refiner_ds.data.made", "def run():\n    import torch", ":2 imports inside a function"),
        ("refiner_ds.data.made", "from ..checkpoint import layout", "layout, which is not below"),
        ("refiner_ds.data", "from .. import cli", "cli, which is not below"),
        ("refiner_ds.data.made", "import importlib", "imports by name"),
        ("refiner_ds.helpers", "from refiner_ds.errors import UserError", "has no layer"),
        ("refiner_ds.data.order", "from refiner_ds.data.made import thing", "import cycle"),
    ],
)
def test_a_violation_is_found(module, source, words):
    modules = {
        **dict.fromkeys(("refiner_ds.errors", "refiner_ds.chance", "refiner_ds.world", *OPTIONS), ""),
        **dict.fromkeys(("refiner_ds.checkpoint.layout", "refiner_ds.evaluate.metrics", "refiner_ds.cli"), ""),
        "refiner_ds.data.made": "from refiner_ds.data.order import Order",
    }
    assert [fault for fault in faults({**modules, module: source}) if words in fault]
    assert faults(modules) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("refiner_ds.verbs.made", "from refiner_ds.verbs.repair import read_picture\nimport refiner_ds.config.verbs"),
        ("refiner_ds.train.run", "from refiner_ds.evaluate.validation import validate"),
        ("refiner_ds.train.made", "from refiner_ds.data.stream import Stream\nfrom importlib.metadata import version"),
        ("refiner_ds.train.engine", "import deepspeed"),
        ("refiner_ds.data.made", "from refiner_ds.data.order import Order\nfrom refiner_ds.errors import UserError"),
    ],
)
def test_what_the_layers_allow_is_no_violation(module, source):
    assert faults({module: source, "refiner_ds.config.verbs": ""}) == []
