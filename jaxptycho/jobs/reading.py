"""Job files: TOML text to a checked `Job`, and changes to single keys of it."""

import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from h5py import is_hdf5
from pydantic import ValidationError

from ..io.hdf5 import is_zarr
from ..runs.references import absolute, is_reference
from .job import Job, default_steps
from .mistakes import mistake_sentence
from .optimisation import AUTO, Rate, nested_rates
from .schema import Section, suggest

MAX_JOB_BYTES = 2**20
S = TypeVar("S", bound=Section)


def read_job(path: str | Path, settings: Sequence[str] = ()) -> Job:
    """Checked job of a TOML file, with `settings` such as `step.0.epochs=5` in place of its values.

    `step.0.epochs=+20` adds to its number of epochs.
    Files are found relative to the job; those of `settings` in the working folder, too. Raises
    ValueError with a sentence for every mistake.
    """
    path = Path(path)
    values = parse(path)
    values = with_defaults(values) if settings else values
    keys = {".".join(change(values, setting)) for setting in settings}
    job = make_job(map_references(values, lambda name: absolute(name, path.parent)), path)

    def found(where: str, file: str, role: str) -> str:
        place = path.parent / file
        if where in keys and not place.exists() and Path(file).exists():
            place = Path(file)
        return str(place.resolve())

    return map_files(job, found)


def is_job(path: Path) -> bool:
    """False for a measurement: an existing file, or store of Zarr, that is no text of a job."""
    if path.suffix.lower() == ".toml" or not path.exists():
        return True
    if path.is_dir():
        return not is_zarr(path)
    if path.stat().st_size > MAX_JOB_BYTES:
        return False
    try:
        return bool(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        return False


def parse(path: Path) -> dict[str, Any]:
    """The nested dictionaries of a job file; ValueError for what is no job."""
    if path.is_dir():
        job = path / "run.toml"
        run = f"; the job of this run is {job}" if job.exists() else ""
        raise ValueError(f"{path} is a folder, and a job file (TOML) is required{run}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        if is_hdf5(path):
            raise ValueError(
                f"{path} is an HDF5 file, and a job file (TOML) is required; `jaxptycho new` "
                "writes one for measurements"
            ) from None
        raise ValueError(
            f"{path} is not valid TOML: {error}; a job looks like those of `jaxptycho new`"
        ) from None
    if not any(section in Job.model_fields for section in values):
        named = f"holds no job but {', '.join(values)}" if values else "is empty"
        raise ValueError(
            f"{path} {named}; `jaxptycho new FILE` writes one, and `inspect` describes files"
        )
    return values


def make_job(values: dict[str, Any], source: str | Path = "the job") -> Job:
    """The checked job of nested dictionaries."""
    try:
        return Job.model_validate(values)
    except ValidationError as error:
        told = [f"{source}: {mistake_sentence(one, Job)}" for one in error.errors()]
        raise ValueError("\n".join(told)) from None


def map_references(values: Any, change: Callable[[str], str]) -> Any:
    """Nested values, or sections, with every `module:function` replaced by `change` of it."""
    if isinstance(values, Section):
        fields = {name: getattr(values, name) for name in type(values).model_fields}
        return values.model_copy(update=map_references(fields, change))
    if isinstance(values, dict):
        return {name: map_references(value, change) for name, value in values.items()}
    if isinstance(values, list):
        return [map_references(value, change) for value in values]
    return change(values) if isinstance(values, str) and is_reference(values) else values


def map_files(section: S, change: Callable[[str, str, str], str], where: str = "") -> S:
    """Section with every file in it replaced by `change(key, file, role)`.

    Keys are in the form of `--set`, roles are "input" and "output".
    """
    update: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value: Any = getattr(section, name)
        place = f"{where}{name}"
        extra: Any = field.json_schema_extra or {}
        if isinstance(value, Section):
            update[name] = map_files(value, change, f"{place}.")
        elif isinstance(value, list) and any(isinstance(entry, Section) for entry in value):
            pairs = enumerate(value)
            update[name] = [map_files(entry, change, f"{place}.{n}.") for n, entry in pairs]
        elif value is not None and "role" in extra:
            update[name] = change(place, str(value), extra["role"])
    return section.model_copy(update=update)


def files_of(job: Section) -> dict[str, str]:
    """The files that a job reads, by the key that names each."""
    found = {}

    def note(where: str, file: str, role: str) -> str:
        if role == "input":
            found[where] = file
        return file

    map_files(job, note)
    return found


def beside(job: Job, folder: Path) -> Job:
    """Job with its files and modules relative to `folder`; absolute if both share only the root."""
    near = folder.resolve()

    def relative(reference: str) -> str:
        module, _, name = reference.rpartition(":")
        return f"{_relative(module, near)}:{name}" if module.endswith(".py") else reference

    with_files = map_files(job, lambda where, file, role: _relative(file, near))
    return map_references(with_files, relative)


def _relative(file: str, folder: Path) -> str:
    parts = zip(Path(file).parts, folder.parts, strict=False)
    shared = [one == other for one, other in parts]
    return os.path.relpath(file, folder) if shared[:2] == [True, True] else file


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a job with its default steps, so that each can be changed."""
    steps = values.get("step")
    if steps is None:
        specimen = values.get("specimen")
        series = isinstance(specimen, dict) and specimen.get("kind") == "volume"
        steps = [step.model_dump(exclude_none=True) for step in default_steps(series)]
    return values | {"step": steps}


def setting_value(text: str) -> Any:
    """Value of a setting, as in TOML, or plain text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def change(values: dict[str, Any], setting: str) -> list[str]:
    """Puts the value of a setting such as `step.0.epochs=5` in its place; its key, part by part."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(
            f"--set {setting}: the form key=value is required, for example step.0.epochs=20"
        )
    value = setting_value(text)
    path = _parts(key.strip(), setting)
    *parents, last = _of_rates(path)
    node: Any = values
    for depth, parent in enumerate(parents):
        inside = (
            node[_index(node, path[: depth + 1], setting)]
            if isinstance(node, list)
            else node.get(parent)
        )
        if parent == "rates" and isinstance(inside, dict):
            inside = nested_rates(inside)
        elif depth and parents[depth - 1] == "rates" and isinstance(inside, int | float):
            inside = {"rate": inside}
        elif parent == "rates" and inside == AUTO:
            inside = {}
        elif parent == "loss" and isinstance(inside, str):
            inside = {"kind": inside}
        elif inside is not None and not isinstance(inside, dict | list):
            value_of = ".".join(parents[: depth + 1])
            raise ValueError(
                f"--set {setting}: {value_of} is a value ({inside!r}) and has no keys; set "
                f"{value_of} itself"
            )
        if not isinstance(node, list):
            following = [*parents, last][depth + 1]
            node[parent] = ([] if following.isdigit() else {}) if inside is None else inside
            inside = node[parent]
        node = inside
    place: Any = _index(node, path, setting) if isinstance(node, list) else last
    more = last == "epochs" and text.strip().startswith("+") and isinstance(value, int)
    if more:
        assert isinstance(node, dict)
        value += node.get(last) or 0
    node[place] = value
    return path


def _parts(key: str, setting: str) -> list[str]:
    """The parts of a key as TOML has them: separated by dots, quoted where they hold dots
    themselves.
    """
    try:
        node = tomllib.loads(f"{key} = 0")
        parts = []
    except tomllib.TOMLDecodeError:
        node = 0
        parts = []
    while isinstance(node, dict) and len(node) == 1:
        ((name, node),) = node.items()
        parts.append(name)
    if node != 0 or not parts:
        raise ValueError(
            f"--set {setting}: {key!r} is no key; separate its parts by dots, as in "
            "step.0.epochs=20"
        )
    return parts


def _of_rates(path: list[str]) -> list[str]:
    """Path with a field of the model, below the rates of a step, as one part: scan.positions."""
    if path[:1] != ["step"] or path[2:3] != ["rates"] or len(path) < 4:
        return path
    option = path[-1:] if len(path) > 4 and path[-1] in Rate.model_fields else []
    return [*path[:3], ".".join(path[3 : len(path) - len(option)]), *option]


def _index(entries: list, path: list[str], setting: str) -> int:
    """The last part of the path as the number of an entry."""
    *before, last = path
    where = ".".join(before)
    n = len(entries)
    if not last.isdigit():
        raise ValueError(
            f"--set {setting}: {where} has several entries, counted from 0; name one, as in "
            f"{where}.0"
        )
    if len(before) == 1 and where not in Job.model_fields:
        raise ValueError(
            f"--set {setting}: there is no {where}; {suggest(where, list(Job.model_fields))}"
        )
    if int(last) >= n:
        known = (
            f"{where}.0" + (f" to {where}.{n - 1}" if n > 1 else "")
            if n
            else f"none; set all of them, {where}=[{{…}}]"
        )
        raise ValueError(f"--set {setting}: there is no {where}.{last}; known are {known}")
    return int(last)
