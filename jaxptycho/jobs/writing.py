"""Jobs as commented TOML text."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import tomlkit
from tomlkit.items import Table

from .mistakes import sections_of
from .schema import Scheduled, Section

COMMENT_COLUMN = 36
NO_SOURCES: Mapping[str, str] = MappingProxyType({})


def write_job(
    job: Section,
    blanks: bool = False,
    only: Collection[str] = (),
    sources: Mapping[str, str] = NO_SOURCES,
    head: Sequence[str] = (),
) -> str:
    """TOML text of a job, every key with its meaning; with `blanks`, unset keys as comments too.

    `only` names the sections that are written, all by default. `sources` are written beside keys,
    by their path ("probe.defocus_angstrom"), in place of the meaning; `head` are lines of comment
    before all.
    """
    document = tomlkit.document()
    for line in head:
        document.add(tomlkit.comment(line))
    _fill(document, job, blanks, only, sources)
    return tomlkit.dumps(document).rstrip() + "\n"


def _fill(
    table: Any,
    section: Section,
    blanks: bool,
    only: Collection[str] = (),
    sources: Mapping[str, str] = NO_SOURCES,
) -> None:
    """Write `section` into a TOML table: plain keys first, then what has a heading."""
    nested = []
    fields = type(section).model_fields.items()
    for name, field in sorted(fields, key=lambda item: item[0] != "kind"):
        if only and name not in only:
            continue
        value = getattr(section, name)
        about = sources.get(name, field.description)
        if (short := _shorthand(value)) is not None:
            table.add(name, short)
            _comment(table, name, about)
        elif isinstance(value, Section) or (value and _holds_sections(value)):
            nested.append((name, field, value))
        elif value == [] and blanks:
            for line in _choices(name, field):
                table.add(tomlkit.comment(line))
        elif value is not None and not (value == [] and sections_of(field.annotation)):
            table.add(name, _inline(value) if isinstance(value, dict) else value)
            _comment(table, name, about)
        elif value is None and blanks and field.examples:
            line = f"# {name} = {tomlkit.item(field.examples[0]).as_string()}"
            table.add(tomlkit.comment(_aligned(line[2:], field.description, COMMENT_COLUMN - 2)))
    for name, value in (section.model_extra or {}).items():  # options of a function of the user
        table.add(name, value)
    for name, field, value in nested:
        if isinstance(value, Section):
            inside = {key.partition(".")[2]: v for key, v in sources.items() if _in(key, name)}
            table.add(name, _table(value, blanks, (type(value).__doc__ or ""), inside))
        elif isinstance(value, dict):
            rates = tomlkit.table()
            rates.comment(field.description or "")
            for part, rate in value.items():
                short = blanks and rate == type(rate)(rate=rate.rate)
                rates.add(part, rate.rate if short else _inline(rate.model_dump(exclude_none=True)))
            if blanks:
                rates.add(
                    tomlkit.comment('or {rate = 0.005, schedule = "cosine", end = 0.1, start = 5}')
                )
            table.add(name, rates)
        else:
            array = tomlkit.aot()
            for entry in value:
                array.append(_table(entry, blanks, _first_line(type(entry))))
            table.add(name, array)


def _shorthand(value: Any) -> Any:
    """Single entry of a registry as its kind, or as an inline table with its options."""
    kind = getattr(value, "kind", None)
    if not isinstance(value, Section) or type(value).__name__ not in (kind, "Named"):
        return None
    given = value.model_dump(exclude_defaults=True) | {"kind": kind}
    return kind if len(given) == 1 else _inline(given)


def _choices(name: str, field) -> list[str]:
    """Comment with the form of an entry of an empty list of sections, and its kinds."""
    kinds = sections_of(field.annotation)
    lines = [
        f"{field.description}, after all other keys of the step:",
        f"[[step.{name}]]",
        'kind = "…", one of',
    ]
    for kind in kinds:
        own = [key for key in kind.model_fields if key not in ("kind", *Scheduled.model_fields)]
        keys = f" ({', '.join(own)})" if own else ""
        name = "module:function" if kind.__name__ == "Named" else kind.__name__
        lines.append(f"  {name}{keys}: {_first_line(kind)}")
    return lines


def _in(key: str, section: str) -> bool:
    """True for the path of a key in `section`."""
    return key.startswith(f"{section}.")


def _table(
    section: Section, blanks: bool, about: str, sources: Mapping[str, str] = NO_SOURCES
) -> Table:
    table = tomlkit.table()
    if about:
        table.comment(about)
        table.trivia.comment_ws = "  "
    _fill(table, section, blanks, sources=sources)
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
