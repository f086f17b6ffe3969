"""The language of the package: plain names and sentences, one place for each, lines that fit."""

import ast
import collections
import functools
import inspect
import re
from pathlib import Path

import jaxptycho

ROOT = Path(jaxptycho.__file__).parent
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
BANNED = re.compile(
    r"\b(wants?|stands?|lies|anew|by lot|lest|lit|mended|illumined|so many|gone on with|by itself|shall)\b"
)
COLUMNS = 100


def functions(tree):
    """Public functions and methods, nested ones among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
            "_"
        ):
            yield node


def sentences(tree):
    """Docstrings, and the strings of what is raised."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""
        elif isinstance(node, ast.Raise):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Every file of the package, parsed."""
    return {name: ast.parse(text) for name, text in TEXTS.items()}


def test_words_of_the_glossary_stay_away():
    found = [
        (name, line, match.group())
        for name, tree in trees().items()
        for line, text in sentences(tree)
        for match in BANNED.finditer(text)
    ]
    assert found == []


def test_lines_fit():
    long = [
        (name, number)
        for name, text in TEXTS.items()
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert long == []


def test_public_parameters_are_annotated():
    bare = []
    for name, tree in trees().items():
        for node in functions(tree):
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            bare += [
                f"{name}: {node.name}({argument.arg})"
                for argument in given
                if argument.arg not in ("self", "cls") and argument.annotation is None
            ]
    assert bare == []


def test_a_public_name_has_one_place():
    places = collections.defaultdict(set)
    for file, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(file)
    assert {name: sorted(where) for name, where in places.items() if len(where) > 1} == {}


def test_packed_assignments_are_rare():
    """At most three of a thousand lines: true pairs."""
    lines = sum(len(text.splitlines()) for text in TEXTS.values())
    packed = 0
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
                packed += isinstance(node.targets[0], ast.Tuple) and len(node.value.elts) > 1
    assert packed <= 3e-3 * lines


def test_public_classes_are_documented_by_people():
    """A dataclass without a docstring invents one of its signature."""
    invented = [
        name
        for name in jaxptycho.__all__
        if inspect.isclass(value := getattr(jaxptycho, name))
        and (not value.__doc__ or value.__doc__.startswith(f"{name}("))
    ]
    assert not invented


def test_nothing_leaks_into_the_namespace():
    public = {name for name in vars(jaxptycho) if not name.startswith("_")}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} | {"model", "viewing"}
    helpers = {"import_module", "TYPE_CHECKING", "Any", "jaxtyping"}  # the last by the test hook
    assert public - set(jaxptycho.__all__) - folders <= helpers
