"""Job files: TOML → checked `Job`, `TomogramJob` or `SimulationJob`, and each → commented TOML."""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomlkit
from pydantic import ValidationError
from tomlkit.items import Table

from .references import absolute, is_reference
from .schema import Job, Scheduled, Section, suggest
from .simulation_schema import SimulationJob
from .tomogram_schema import TomogramJob

COMMENT_COLUMN = 36
J = TypeVar("J", bound=Job | TomogramJob | SimulationJob)


def read_job(path: str | Path, settings: list[str] | None = None, kind: type[J] = Job) -> J:
    """The checked job of a TOML file, with `settings` such as `stage.0.epochs=5` in the place of its own.

    Files are found relative to the job. Raises ValueError with a sentence for every mistake.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}; a job looks like those of `jaxptycho new`") from None
    for setting in settings or []:
        _set(values, setting)
    job = make_job(values, path, kind)
    found = {
        section: getattr(job, section).model_copy(update={name: str((path.parent / file).resolve())})
        for section, name in job.FILES.items()
        if (file := getattr(getattr(job, section), name)) is not None
    }
    if isinstance(job, Job) and is_reference(job.specimen.kind):
        reference = absolute(job.specimen.kind, path.parent)
        found["specimen"] = job.specimen.model_copy(update={"kind": reference})
    return job.model_copy(update=found)


def kind_of(path: str | Path) -> type[Job] | type[TomogramJob] | type[SimulationJob]:
    """What a job file describes: a simulation has a microscope and no data, a tomogram has a volume."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return Job  # `read_job` says what is wrong
    if "microscope" in values and "data" not in values:
        return SimulationJob
    return TomogramJob if "volume" in values else Job


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


def _set(values: dict, setting: str) -> None:
    path, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"--set {setting} wants the form key=value, for example stage.0.epochs=20")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = (int(part) if part.isdigit() else part for part in path.strip().split("."))
    node: Any = values
    try:
        for parent in parents:
            node = node[parent] if isinstance(parent, int) else node.setdefault(parent, {})
        node[last] = value
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"--set {setting}: the job has no {path}; stages are counted from 0") from None


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
