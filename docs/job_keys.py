"""Reference of all keys of a job, made from their schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jaxptycho.inverse.constraints import CONSTRAINTS
from jaxptycho.inverse.losses import LOSSES
from jaxptycho.inverse.penalties import PENALTIES
from jaxptycho.jobs.job import Job

TABLES = ("data", "probe", "specimen", "scan", "propagator", "detector", "start", "figures", "run")
REGISTRIES = {"loss": LOSSES, "penalty": PENALTIES, "constraint": CONSTRAINTS}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
HEAD = """# Keys of a job

A job is a TOML file. `jaxptycho new FILE` writes one with all of these keys explained, those
without a default as comments; any of them is set from the command line as
`--set probe.modes=2`, in a step as `--set step.0.epochs=80`. This page is made from the same
schema that checks a job.
"""


def job_keys() -> str:
    """Markdown page of every section, step and registered function."""
    schema = Job.model_json_schema()
    defined = schema["$defs"]
    lines = [HEAD]
    for name in TABLES:
        for section in _sections(schema["properties"][name]):
            about = defined[section]
            kinds = _kinds(about)
            title = f"`[{name}]`" + (f" of kind {kinds}" if name == "specimen" and kinds else "")
            lines += _section(title, about, defined)
    lines += ["## `[vary]`\n", schema["properties"]["vary"]["description"].capitalize() + ".\n"]
    lines.append("## `[[step]]`\n\nThe steps of a job, in their order.\n")
    for choice in schema["properties"]["step"]["items"]["oneOf"]:
        about = defined[_name(choice)]
        if kind := _kinds(about):
            lines += _section(f"`kind = {kind}`", about, defined, 3, leave_out=("kind",))
    for name, registry in REGISTRIES.items():
        lines.append(f"## Kinds of `{name}`\n\nOr `module:function` of your own.\n")
        for kind in registry:
            about = defined[kind]
            lines += _section(f"`{kind}`", about, defined, 3, leave_out=("kind",))
    return "\n".join(lines) + "\n"


def _section(
    title: str, about: Mapping, defined: Mapping, level: int = 2, leave_out: tuple = ()
) -> Iterator[str]:
    """Heading, description and table of the keys of a section, and of those inside it."""
    yield f"{'#' * level} {title}\n"
    if text := about.get("description"):
        yield _text(text) + "\n"
    keys = {n: key for n, key in about.get("properties", {}).items() if n not in leave_out}
    if keys:
        yield "| key | value | default | meaning |\n|---|---|---|---|"
        for name, key in keys.items():
            cells = (f"`{name}`", _type(key), _default(key, name in about.get("required", ())))
            yield f"| {' | '.join(cells)} | {_text(key.get('description', ''))} |"
        yield ""


def _sections(key: Mapping) -> list[str]:
    """Names of the sections that a key may be."""
    return [_name(choice) for choice in key.get("oneOf", [key]) if "$ref" in choice]


def _name(choice: Mapping) -> str:
    return choice["$ref"].rpartition("/")[2]


def _kinds(about: Mapping) -> str:
    """The kinds that a section is for, as in TOML."""
    kind = about.get("properties", {}).get("kind", {})
    values = [kind["const"]] if "const" in kind else kind.get("enum", [])
    return ", ".join(f'"{value}"' for value in values)


def _type(key: Mapping) -> str:
    """What a key may be."""
    if "$ref" in key:
        return "section"
    if choices := key.get("anyOf", key.get("oneOf")):
        found = [_type(choice) for choice in choices if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(found))
    if "const" in key or "enum" in key:
        return ", ".join(f"`{_toml(value)}`" for value in key.get("enum", [key.get("const")]))
    kind = key.get("type", "any")
    if kind == "array":
        inner = _type(key.get("items", {}))
        return f"list of {key['minItems']}: {inner}" if "minItems" in key else f"list: {inner}"
    limits = [f"{sign} {key[name]:g}" for name, sign in LIMITS.items() if name in key]
    plain = {"object": "table", "string": "text", "boolean": "true or false"}.get(kind, kind)
    return " ".join([plain, ", ".join(limits)]).strip()


def _default(key: Mapping, required: bool) -> str:
    if required:
        return "required"
    value = key.get("default")
    if value is None:
        example = key.get("examples")
        return f"none, such as `{_toml(example[0])}`" if example else "none"
    return "section" if isinstance(value, dict) and value else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(text: str) -> str:
    """Text of a docstring in one line of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
