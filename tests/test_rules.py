"""The rules of the house: which floor may know which, and what a module owes its reader."""

import ast
import functools
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import pytest

import jaxptycho

ROOT = Path(jaxptycho.__file__).parent
FLOORS = [
    "viewing",
    "kernels",
    "physics",
    "parts",
    "model",
    "data",
    "direct",
    "inverse",
    "analysis",
    "start",
    "tomography",
    "simulate",
    "distributed",
    "io",
    "figures",
    "runs",
    "reports",
    "live",
    "acquisition",
    "jobs",
    "cli",
    "__main__",
]
FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(ROOT.rglob("*.py"))}
MODULES = {
    name: path for name, path in FILES.items() if name != "__init__"
}  # the root sees every floor


def floor(name):
    return FLOORS.index(name.split(".")[0])


@functools.cache
def imports(name):
    """Modules of the package that the module `name` imports, wherever in the file."""
    package = name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            targets = [a.name.split(".") for a in node.names]
            found |= {".".join(t[1:]) for t in targets if t[0] == "jaxptycho"}
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            elif base[0] == "jaxptycho":
                base = base[1:]
            else:
                continue
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in MODULES else ".".join(base))
    return {m if m in MODULES else f"{m}.__init__" if m else "__init__" for m in found} - {name}


def test_imports_point_down():
    found = {(name, other) for name in MODULES for other in imports(name)}
    assert {pair for pair in found if pair[1] == "__init__"} == set()  # the package's root
    assert {pair for pair in found if floor(pair[1]) > floor(pair[0])} == set()


def test_imports_run_in_no_circle():
    graph = {name: imports(name) for name in MODULES}
    done = set()
    while len(done) < len(graph):
        free = {
            name
            for name, others in graph.items()
            if name not in done and others & set(graph) <= done
        }
        assert free, f"imports run in a circle among {sorted(set(graph) - done)}"
        done |= free


def modules():
    names = [
        m.name
        for m in pkgutil.walk_packages([str(ROOT)], "jaxptycho.")
        if not m.name.endswith("__main__")
    ]
    return [importlib.import_module(name) for name in names]


def test_modules_are_abstract_or_final():
    """No class inherits what another one does (equinox's pattern)."""
    classes = {
        c
        for m in modules()
        for c in vars(m).values()
        if inspect.isclass(c) and issubclass(c, eqx.Module)
    }
    own = [c for c in classes if c.__module__.startswith("jaxptycho.")]
    assert len(own) > 20
    for one in own:
        for parent in one.__mro__[1:]:
            if parent in own:
                assert inspect.isabstract(parent), (
                    f"{one.__name__} inherits from {parent.__name__}, which is final"
                )
        if one.__name__.startswith("Abstract"):
            assert inspect.isabstract(one), f"{one.__name__} has no abstract method"


def test_import_is_light():
    """Notebooks and steps pay for neither plots, nor files, nor the command line."""
    heavy = (
        "matplotlib",
        "h5py",
        "typer",
        "rich",
        "pydantic",
        "tomlkit",
        "mrcfile",
        "tifffile",
        "orbax",
        "scipy.ndimage",
        "scipy.sparse",
        "scipy.spatial",
    )
    code = f"import sys, jaxptycho; print(*[m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_public_names_are_there():
    assert {"read", "write", "load"} <= {
        n for n in ("read", "write", "load") if callable(getattr(jaxptycho, n))
    }
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jaxptycho.nothing


def undocumented(tree: ast.Module) -> list[str]:
    """What of a module says nothing of itself: the module, its public functions and classes."""
    named = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not (isinstance(node, ast.ClassDef) and node.name.startswith("Abstract"))
    ]
    silent = [node.name for node in named if not ast.get_docstring(node)]
    return silent + ["the module"] * bool(tree.body and not ast.get_docstring(tree))


def test_public_names_explain_themselves():
    silent = {name: undocumented(ast.parse(path.read_text())) for name, path in MODULES.items()}
    assert {name: names for name, names in silent.items() if names} == {}


def test_names_of_the_package_explain_themselves():
    for name, value in vars(jaxptycho).items():
        if callable(value) and not name.startswith("_"):
            assert value.__doc__, name


def test_files_are_short():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_files_of_tests_have_names_of_their_own():
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest cannot import two files of one name"
