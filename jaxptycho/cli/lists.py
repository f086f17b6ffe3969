"""The verb `list`: names that jobs and commands accept."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from .errors import tidy
from .options import Debug
from .output import print_table


@tidy
def list_names(
    what: Annotated[
        str, typer.Argument(help="templates, phantoms, data, keys, or steps, losses, solvers …")
    ],
    debug: Debug = False,
) -> None:
    """List templates, phantoms, data to try, keys of a job, or what a key can name."""
    if what not in LISTS:
        raise ValueError(f"{what!r} is no list; known are {', '.join(LISTS)}")
    print_table(LISTS[what](), what)


def _templates() -> dict[str, str]:
    """First line of every template."""
    from ..jobs.template_files import template_text, templates

    return {name: template_text(name).split("\n")[0].lstrip("# ") for name in templates()}


def _phantoms() -> dict[str, str]:
    from ..simulate.phantoms import PHANTOMS

    return _described(PHANTOMS)


def _data() -> dict[str, str]:
    from ..jobs.fetch import registry

    return {name: entry.about for name, entry in registry().items()}


def _keys() -> dict[str, str]:
    """Every key of a job, and what it means."""
    from ..jobs.job import Job

    schema = Job.model_json_schema()
    rows: dict[str, str] = {}
    for name, about in schema["properties"].items():
        for section in _sections(about, schema["$defs"]):
            keys = section.get("properties", {}).items()
            rows |= {f"{name}.{key}": value.get("description", "a section") for key, value in keys}
    return rows


def _sections(about: Mapping[str, Any], defined: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Schemas of the sections that a key of a job holds."""
    choices = (*about.get("oneOf", ()), *about.get("anyOf", ()))
    inner = (about["items"], *choices) if "items" in about else choices
    found = [defined[about["$ref"].rpartition("/")[2]]] if "$ref" in about else []
    return found + [section for one in inner for section in _sections(one, defined)]


def _registry(place: str, name: str) -> Callable[[], dict[str, str]]:
    def listed() -> dict[str, str]:
        from importlib import import_module

        return _described(getattr(import_module(place, __package__), name))

    return listed


def _described(registry: Mapping[str, Any]) -> dict[str, str]:
    """First sentence of the docstring of every entry."""
    return {
        name: " ".join((entry.__doc__ or "").split("\n\n")[0].split())
        for name, entry in registry.items()
        if not name.startswith("_")
    }


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "templates": _templates,
    "phantoms": _phantoms,
    "data": _data,
    "keys": _keys,
    "steps": _registry("..jobs.steps", "STEPS"),
    "losses": _registry("..inverse.losses", "LOSSES"),
    "penalties": _registry("..inverse.penalties", "PENALTIES"),
    "constraints": _registry("..inverse.constraints", "CONSTRAINTS"),
    "solvers": _registry("..inverse.solvers", "SOLVERS"),
}
