"""Job files: TOML → checked `Job`, `TomogramJob` or `SimulationJob`, and each → commented TOML."""

import os
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomlkit
from h5py import is_hdf5
from pydantic import ValidationError
from tomlkit.items import Table

from .references import absolute, is_reference
from .schema import Job, Rate, Scheduled, Section, nested_rates, suggest
from .simulation_schema import SimulationJob
from .tomogram_schema import TomogramJob

COMMENT_COLUMN = 36
VERBS: dict[type[Job] | type[TomogramJob] | type[SimulationJob], str] = {
    Job: "reconstruct",
    TomogramJob: "tomogram",
    SimulationJob: "simulate",
}
WHAT = {Job: "the reconstruction of a scan", TomogramJob: "that of a tilt series", SimulationJob: "a simulation"}
J = TypeVar("J", bound=Job | TomogramJob | SimulationJob)


def read_job(path: str | Path, settings: Sequence[str] = (), kind: type[J] = Job) -> J:
    """The checked job of a TOML file, with `settings` such as `stage.0.epochs=5` in the place of its own.

    Files are found relative to the job; those of `settings` in the working folder, too. Raises ValueError with a sentence
    for every mistake, and for a job of another kind.
    """
    path = Path(path)
    values = parse(path)
    best = best_kind(values)
    if _misfit(values, kind) > _misfit(values, best):
        raise ValueError(f"{path} describes {WHAT[best]}; give it to `jaxptycho {VERBS[best]} {path}`")
    values = with_defaults(values, kind) if settings else values
    keys = [change(values, setting) for setting in settings]
    job = make_job(values, path, kind)
    found = {}
    for section, name in job.FILES.items():
        file = getattr(getattr(job, section), name)
        if file is not None:
            place = path.parent / file
            if [section, name] in keys and not place.exists() and Path(file).exists():
                place = Path(file)
            found[section] = getattr(job, section).model_copy(update={name: str(place.resolve())})
    if isinstance(job, Job) and is_reference(job.specimen.kind):
        reference = absolute(job.specimen.kind, path.parent)
        found["specimen"] = job.specimen.model_copy(update={"kind": reference})
    return job.model_copy(update=found)


def parse(path: Path) -> dict[str, Any]:
    """The nested dictionaries of a job file; ValueError for what is no job at all."""
    if path.is_dir():
        run = f"; the job of this run is {path / 'run.toml'}" if (path / "run.toml").exists() else ""
        raise ValueError(f"{path} is a folder, and a job file (TOML) is required{run}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        if is_hdf5(path):
            raise ValueError(
                f"{path} is an HDF5 file, and a job file (TOML) is required; `jaxptycho new` writes one for measurements"
            ) from None
        raise ValueError(f"{path} is not valid TOML: {error}; a job looks like those of `jaxptycho new`") from None
    if not any(section in kind.model_fields for section in values for kind in VERBS):
        named = ", ".join(values) or "nothing"
        raise ValueError(
            f"{path} holds no job but {named}; `jaxptycho new FILE` writes one, and `inspect` describes files"
        )
    return values


def kind_of(path: str | Path) -> type[Job] | type[TomogramJob] | type[SimulationJob]:
    """What a job file describes, by its sections."""
    return best_kind(parse(Path(path)))


def best_kind(values: dict[str, Any]) -> type[Job] | type[TomogramJob] | type[SimulationJob]:
    """The kind of job whose sections these are most nearly."""
    return min(VERBS, key=lambda kind: _misfit(values, kind))


def _misfit(values: dict[str, Any], kind: type[Section]) -> int:
    """Number of sections that a kind of job does not know, or lacks."""
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    return len(set(values) - set(kind.model_fields)) + len(required - set(values))


def make_job(values: dict[str, Any], source: str | Path = "the job", kind: type[J] = Job) -> J:
    """The checked job of nested dictionaries."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError("\n".join(f"{source}: {_sentence(e, kind)}" for e in error.errors())) from None


def write_job(job: Section, blanks: bool = False) -> str:
    """TOML text of a job, every key with its meaning; with `blanks`, unset keys as comments too."""
    document = tomlkit.document()
    _fill(document, job, blanks)
    return tomlkit.dumps(document).rstrip() + "\n"


def beside(job: J, folder: Path) -> J:
    """The job with its files relative to `folder`; absolute where both have nothing in common but the root."""
    near = {
        section: getattr(job, section).model_copy(update={name: _relative(file, folder.resolve())})
        for section, name in job.FILES.items()
        if (file := getattr(getattr(job, section), name)) is not None
    }
    return job.model_copy(update=near)


def _relative(file: str, folder: Path) -> str:
    shared = [one == other for one, other in zip(Path(file).parts, folder.parts, strict=False)]
    return os.path.relpath(file, folder) if shared[:2] == [True, True] else file


def with_defaults(values: dict[str, Any], kind: type[Section]) -> dict[str, Any]:
    """The job with its stages and their rates, where it leaves them to the defaults, so that each can be changed."""
    if "stage" not in kind.model_fields:
        return values
    section = _sections(kind.model_fields["stage"].annotation)[0]
    stages = values.get("stage")
    if stages is None:
        default = kind.model_fields["stage"].get_default(call_default_factory=True)
        stages = [stage.model_dump(exclude_none=True) for stage in default]
    rates = {name: rate.model_dump(exclude_none=True) for name, rate in section.model_fields["rates"].default.items()}
    known = isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages)
    return values | {"stage": [{"rates": dict(rates)} | stage for stage in stages] if known else stages}


def change(values: dict[str, Any], setting: str) -> list[str]:
    """Puts the value of a setting such as `stage.0.epochs=5` in its place; its key, part by part."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"--set {setting}: the form key=value is required, for example stage.0.epochs=20")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    path = _parts(key.strip(), setting)
    *parents, last = _of_rates(path)
    node: Any = values
    for depth, parent in enumerate(parents):
        inside = node[_index(node, path[: depth + 1], setting)] if isinstance(node, list) else node.get(parent)
        if parent == "rates" and isinstance(inside, dict):
            inside = nested_rates(inside)
        elif depth and parents[depth - 1] == "rates" and isinstance(inside, int | float):
            inside = {"rate": inside}
        elif inside is not None and not isinstance(inside, dict | list):
            value_of = ".".join(parents[: depth + 1])
            raise ValueError(
                f"--set {setting}: {value_of} is a value ({inside!r}) and has no keys; set {value_of} itself"
            )
        if not isinstance(node, list):
            following = [*parents, last][depth + 1]
            node[parent] = ([] if following.isdigit() else {}) if inside is None else inside
            inside = node[parent]
        node = inside
    node[_index(node, path, setting) if isinstance(node, list) else last] = value
    return path


def _parts(key: str, setting: str) -> list[str]:
    """The parts of a key as TOML has them: separated by dots, quoted where they hold dots themselves."""
    try:
        node, parts = tomllib.loads(f"{key} = 0"), []
    except tomllib.TOMLDecodeError:
        node, parts = 0, []
    while isinstance(node, dict) and len(node) == 1:
        ((name, node),) = node.items()
        parts.append(name)
    if node != 0 or not parts:
        raise ValueError(f"--set {setting}: {key!r} is no key; separate its parts by dots, as in stage.0.epochs=20")
    return parts


def _of_rates(path: list[str]) -> list[str]:
    """The path with a field of the model, below the rates of a stage, as one part: scan.positions."""
    if path[:1] != ["stage"] or path[2:3] != ["rates"] or len(path) < 4:
        return path
    option = path[-1:] if len(path) > 4 and path[-1] in Rate.model_fields else []
    return [*path[:3], ".".join(path[3 : len(path) - len(option)]), *option]


def _index(entries: list, path: list[str], setting: str) -> int:
    """The last part of the path as the number of an entry."""
    *before, last = path
    where, n = ".".join(before), len(entries)
    if not last.isdigit():
        raise ValueError(f"--set {setting}: {where} has several entries, counted from 0; name one, as in {where}.0")
    if int(last) >= n:
        known = (
            f"{where}.0" + (f" to {where}.{n - 1}" if n > 1 else "") if n else f"none; set all of them, {where}=[{{…}}]"
        )
        raise ValueError(f"--set {setting}: there is no {where}.{last}; known are {known}")
    return int(last)


def _sentence(error, root: type[Section]) -> str:
    """One flat sentence of a pydantic error: where, what came, what was wanted."""
    (where, names), came = _place(error["loc"], root), error["input"]
    name = where.rpartition(".")[2]
    match error["type"]:
        case "extra_forbidden":
            return f"there is no key {where}; {_nearest(name, names, root)}"
        case "missing":
            about = names[name].description if name in names else None
            return f"{where} is missing; give {about or 'a value'}"
        case "union_tag_invalid":
            kinds = error["ctx"]["expected_tags"].replace("'", "").split(", ")
            return f"{where}.kind = {came.get('kind')!r}: no such kind; {suggest(str(came.get('kind')), kinds)}"
        case "union_tag_not_found":
            return f'{where} has no kind; say which, for example kind = "…"'
        case "literal_error":
            return f"{where} = {came!r}: wanted {error['ctx']['expected']}"
        case "dict_type" | "model_type" | "model_attributes_type" | "list_type" if names and (
            inside := _keys_at(error["loc"], root)
        ):
            several = error["type"] == "list_type"
            example = f"{where}{'.0' if several else ''}.{next(iter(inside))}"
            what = "a list of sections" if several else "a section"
            return f"{where} = {came!r}: it is {what}, whose keys are {', '.join(inside)}; set one of them, such as {example}"
        case "value_error":
            told = where if isinstance(came, dict) else f"{where} = {came!r}"
            return f"{told}: {error['ctx']['error']}"
        case _:
            wanted = error["msg"].replace("Input should be ", "wanted ").replace("wanted a valid ", "wanted a ")
            wanted = (
                wanted.replace("wanted a integer", "wanted an integer")
                .replace("wanted greater", "wanted a number greater")
                .replace("wanted less", "wanted a number less")
            )
            return f"{where} = {came!r}: {wanted.partition(' or instance of')[0]}"


def _place(loc, root: type[Section]) -> tuple[str, dict]:
    """Where an error lies, as `--set` takes it (`stage.0.constraint.1.start`), and the keys known there."""
    found, known, shown = [root], [root], []
    for part in loc:
        tagged = [section for section in found if section.__name__ == part] if len(found) > 1 else []
        if tagged:  # the kind of a constraint or penalty, which is no key
            found = tagged
            continue
        shown.append(str(part))
        known = found
        fields = [section.model_fields[part] for section in found if part in section.model_fields]
        found = _sections(fields[0].annotation) if fields else found
    return ".".join(shown), {name: field for section in known for name, field in section.model_fields.items()}


def _keys_at(loc, root: type[Section]) -> list[str]:
    """The keys of the section, or of the list of sections, at a place."""
    of_entry = len(loc) > 1 and isinstance(loc[-1], int)
    _, names = _place(loc[:-1] if of_entry else loc, root)
    field = names.get(str(loc[-2] if of_entry else loc[-1]))
    sections = [] if field is None else _sections(field.annotation)
    return list(sections[0].model_fields) if sections and sections[0] is not Rate else []


def _nearest(name: str, names: dict, root: type[Section]) -> str:
    """The key that was meant: one with another unit, one of another section, or a near one."""
    stem = name.partition("_")[0]
    sections = {section: _sections(field.annotation) for section, field in root.model_fields.items()}
    everywhere = {key: f"{section}.{key}" for section, kinds in sections.items() for key in kinds[0].model_fields}
    for keys in ({key: key for key in names}, everywhere):
        by_unit = [key for key in keys if key.partition("_")[0] == stem and "_" in key]
        near = [name] * (name in keys) or by_unit or get_close_matches(name, list(keys), 1, 0.7)
        if near:
            return f"did you mean {keys[near[0]]}?"
    return suggest(name, names)


def _sections(annotation) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _fill(table, section: Section, blanks: bool) -> None:
    """`section` written into a TOML table: plain keys first, then what has a heading."""
    nested = []
    for name, field in sorted(type(section).model_fields.items(), key=lambda item: item[0] != "kind"):
        value = getattr(section, name)
        if isinstance(value, Section) or (value and _holds_sections(value)):
            nested.append((name, field, value))
        elif value == [] and blanks:
            for line in _choices(name, field):
                table.add(tomlkit.comment(line))
        elif value is not None and not (value == [] and _sections(field.annotation)):
            table.add(name, _inline(value) if isinstance(value, dict) else value)
            _comment(table, name, field.description)
        elif value is None and blanks and field.examples:
            line = f"# {name} = {tomlkit.item(field.examples[0]).as_string()}"
            table.add(tomlkit.comment(_aligned(line[2:], field.description, COMMENT_COLUMN - 2)))
    for name, field, value in nested:
        if isinstance(value, Section):
            table.add(name, _table(value, blanks, (type(value).__doc__ or "")))
        elif isinstance(value, dict):
            rates = tomlkit.table()
            rates.comment(field.description or "")
            for part, rate in value.items():
                short = blanks and rate == type(rate)(rate=rate.rate)
                rates.add(part, rate.rate if short else _inline(rate.model_dump(exclude_none=True)))
            if blanks:
                rates.add(tomlkit.comment('or {rate = 0.005, schedule = "cosine", end = 0.1, start = 5}'))
            table.add(name, rates)
        else:
            array = tomlkit.aot()
            for entry in value:
                array.append(_table(entry, blanks, _first_line(type(entry))))
            table.add(name, array)


def _choices(name: str, field) -> list[str]:
    """How an entry of an empty list of sections is written, and which kinds there are."""
    kinds = _sections(field.annotation)
    lines = [f"{field.description}, after all other keys of the stage:", f"[[stage.{name}]]", 'kind = "…", one of']
    for kind in kinds:
        own = [key for key in kind.model_fields if key not in ("kind", *Scheduled.model_fields)]
        keys = f" ({', '.join(own)})" if own else ""
        lines.append(f"  {kind.__name__}{keys}: {_first_line(kind)}")
    return lines


def _table(section: Section, blanks: bool, about: str) -> Table:
    table = tomlkit.table()
    if about:
        table.comment(about)
        table.trivia.comment_ws = "  "
    _fill(table, section, blanks)
    table.add(tomlkit.nl())
    return table


def _first_line(kind: type[Section]) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


def _inline(values: dict):
    table = tomlkit.inline_table()
    table.update(values)
    return table


def _holds_sections(value) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(v, Section) for v in inside)


def _comment(table, name: str, about: str | None) -> None:
    if about:
        item = table.item(name) if hasattr(table, "item") else table[name]
        width = len(f"{name} = {item.as_string()}")
        item.trivia.comment_ws = " " * max(2, COMMENT_COLUMN - width)
        item.trivia.comment = f"# {about}"


def _aligned(text: str, about: str | None, column: int) -> str:
    return f"{text}{' ' * max(2, column - len(text))}# {about}" if about else text
