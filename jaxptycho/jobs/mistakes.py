"""Mistakes in a job, each in one sentence: what came, what was required, what to do."""

from difflib import get_close_matches
from typing import Any, get_args, get_origin

from .optimisation import Rate
from .schema import Section, suggest


def mistake_sentence(error: Any, root: type[Section]) -> str:
    """Sentence of a pydantic error: its place, what came, what was required."""
    where, names = _place(error["loc"], root)
    came = error["input"]
    name = where.rpartition(".")[2]
    match error["type"]:
        case "extra_forbidden":
            return f"there is no key {where}; {_nearest(name, names, root)}"
        case "missing":
            about = names[name].description if name in names else None
            return f"{where} is missing; give {about or 'a value'}"
        case "union_tag_invalid":
            kinds = error["ctx"]["expected_tags"].replace("'", "").split(", ")
            kind = came.get("kind")
            return f"{where}.kind = {kind!r}: no such kind; {suggest(str(kind), kinds)}"
        case "union_tag_not_found" if not isinstance(came, dict):
            return (
                f'{where} = {came!r}: it is a section, one of several kinds, such as {{kind = "…"}}'
            )
        case "union_tag_not_found":
            return f'{where} has no kind; give one, for example kind = "…"'
        case "literal_error":
            return f"{where} = {came!r}: expected {error['ctx']['expected']}"
        case "dict_type" | "model_type" | "model_attributes_type" | "list_type" if names and (
            inside := _keys_at(error["loc"], root)
        ):
            several = error["type"] == "list_type"
            if several and isinstance(came, dict):
                return f"{where} is a list of sections; begin each of them with [[{where}]]"
            example = f"{where}{'.0' if several else ''}.{next(iter(inside))}"
            what = "a list of sections" if several else "a section"
            return (
                f"{where} = {came!r}: it is {what}, whose keys are {', '.join(inside)}; set one "
                f"of them, such as {example}"
            )
        case "value_error":
            value = "" if isinstance(came, dict) else f" = {came!r}"
            place = f"{where}{value}: " if where else ""  # a validator of the full job has none
            return f"{place}{error['ctx']['error']}"
        case _:
            required = (
                error["msg"]
                .replace("Input should be ", "expected ")
                .replace("expected a valid ", "expected a ")
            )
            required = (
                required.replace("expected a integer", "expected an integer")
                .replace("expected greater", "expected a number greater")
                .replace("expected less", "expected a number less")
            )
            return f"{where} = {came!r}: {required.partition(' or instance of')[0]}"


def _place(loc, root: type[Section]) -> tuple[str, dict]:
    """Place of an error, in the form of `--set` (`step.0.constraint.1.start`), and its keys."""
    found = [root]
    known = [root]
    shown = []
    for part in loc:
        if str(part).startswith("("):  # an alternative of a value, which is no key
            continue
        tagged = (
            [section for section in found if _tag_of(section) == part] if len(found) > 1 else []
        )
        if tagged:  # the kind of an entry, which is no key
            found = tagged
            continue
        shown.append(str(part))
        known = found
        fields = [section.model_fields[part] for section in found if part in section.model_fields]
        found = sections_of(fields[0].annotation) if fields else found
    return ".".join(shown), {
        name: field for section in known for name, field in section.model_fields.items()
    }


def _tag_of(section: type[Section]) -> str:
    """Name that pydantic gives to a section where several kinds are possible."""
    if section.__name__ in ("Named", "Step"):
        return "module:function"
    kind = section.model_fields["kind"].annotation if "kind" in section.model_fields else None
    values = get_args(kind)
    return values[0] if section.__name__.endswith("Step") and values else section.__name__


def _keys_at(loc, root: type[Section]) -> list[str]:
    """The keys of the section, or of the list of sections, at a place."""
    of_entry = len(loc) > 1 and isinstance(loc[-1], int)
    _, names = _place(loc[:-1] if of_entry else loc, root)
    field = names.get(str(loc[-2] if of_entry else loc[-1]))
    sections = [] if field is None else sections_of(field.annotation)
    return list(sections[0].model_fields) if sections and sections[0] is not Rate else []


def _nearest(name: str, names: dict, root: type[Section]) -> str:
    """The key that was meant: one with another unit, one of another section, or a near one."""
    if not names:
        return "its class declares none of this name"
    stem = name.partition("_")[0]
    with_unit = any(key.startswith(f"{stem}_") for key in names)
    if name in root.model_fields and name not in names and not with_unit:
        return f"did you mean the section [{name}]?"
    sections = {
        section: sections_of(field.annotation)
        for section, field in root.model_fields.items()
        if get_origin(field.annotation) is not list  # whose entries are of several kinds
    }
    everywhere = {
        key: f"{section}.{key}"
        for section, kinds in sections.items()
        for kind in kinds[:1]
        for key in kind.model_fields
    }
    for keys in ({key: key for key in names}, everywhere):
        by_unit = [key for key in keys if key.partition("_")[0] == stem and "_" in key]
        near = [name] * (name in keys) or by_unit or get_close_matches(name, list(keys), 1, 0.7)
        if near:
            return f"did you mean {keys[near[0]]}?"
    return suggest(name, names)


def sections_of(annotation: Any) -> list[type[Section]]:
    """All sections that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in sections_of(argument)]
