"""Machinery of job files: sections with documented keys, and choices made from registries.

Commented jobs, checks and error messages all come from the sections declared with it. The keys
of a registered function (a constraint, penalty, loss …) are the keyword parameters of its
annotated signature, and `module:function` names one that is not registered.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)

from ..io.instrument import out_of_range
from ..physics.aberrations import NAMES as ABERRATIONS
from ..runs.references import is_reference, resolve

GIVEN = {"model", "batch", "predicted", "counts"}  # parameters of registered functions, not keys


class Section(BaseModel):
    """A table of a job: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def is_default(self, name: str) -> bool:
        """True if the key `name` has its default."""
        return getattr(self, name) == type(self).model_fields[name].default


def key(about: str, default: Any = ..., example: Any = None, *, role: str = "", **limits) -> Any:
    """A documented key.

    `example` is shown in a commented job where there is no default. `role` is "input" or "output"
    for the path of a file, relative to the job.
    """
    extra: Any = {"role": role} if role else None
    examples = None if example is None else [example]
    return Field(default, description=about, examples=examples, json_schema_extra=extra, **limits)


def one_of(names: Collection[str], what: str, references: bool = False):
    """A string out of `names`, or `module:function` where `references` are allowed."""

    def check(value: str) -> str:
        if value not in names and not (references and is_reference(value)):
            raise ValueError(f"no such {what}; {suggest(value, names)}")
        return value

    return Annotated[str, AfterValidator(check)]


def in_unit(name: str):
    """A number within the range that the property `name` of an instrument has in its unit."""

    def check(value: float) -> float:
        if beyond := out_of_range(name, value):
            raise ValueError(beyond)
        return value

    return Annotated[float, AfterValidator(check)]


def number_or_pair(name: str):
    """One number, or (y, x), each within the range of the property `name` in its unit."""

    def check(value: Any) -> Any:
        numbers = value if isinstance(value, list) else [value]
        plain = all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)
        if len(numbers) != (2 if isinstance(value, list) else 1) or not plain or min(numbers) <= 0:
            raise ValueError("one number above 0 is expected, or (y, x)")
        if beyond := out_of_range(name, numbers):
            raise ValueError(beyond)
        return [float(one) for one in numbers] if isinstance(value, list) else float(value)

    return Annotated[float | list[float], BeforeValidator(check)]


def suggest(name: str, names: Collection[str]) -> str:
    """Text 'did you mean …?', or all known names if none is similar."""
    near = get_close_matches(name, list(names), 1, 0.55)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(names))}"


def _aberrations(values: dict[str, float]) -> dict[str, float]:
    for name in values:
        if name not in ABERRATIONS:
            raise ValueError(f"no aberration is called {name}; {suggest(name, ABERRATIONS)}")
    return values


Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Counts = Annotated[list[int], Field(min_length=2, max_length=2)]
Triple = Annotated[list[float], Field(min_length=3, max_length=3)]
Aberrations = Annotated[dict[str, float], AfterValidator(_aberrations)]
Semiangle = in_unit("semiangle_mrad")


class Scheduled(Section):
    """An entry that acts at chosen epochs of a step."""

    start: int = key("first epoch of the step", 0, ge=0)
    stop: int | None = key("epoch before which it ends", None, None, ge=0)
    every: int = key("interval in epochs", 1, ge=1)
    each_step: bool = key("after every optimiser step, in all epochs", False)

    @model_validator(mode="after")
    def _either(self):
        if self.each_step and (self.start, self.stop, self.every) != (0, None, 1):
            raise ValueError(
                "what happens after each step has no start, stop or every; leave these or "
                "each_step out"
            )
        return self

    def due(self, epoch: int) -> bool:
        """True if it acts in this epoch of the step."""
        after = epoch - self.start
        return after >= 0 and after % self.every == 0 and (self.stop is None or epoch < self.stop)


def entry_of(registry: Mapping[str, Callable], base: type[Section] = Section) -> Any:
    """Section for each function of `registry`, identified by `kind`, or `module:function`."""
    kinds = [_section_of(name, builder, base) for name, builder in registry.items()]
    tagged = [Annotated[kind, Tag(kind.__name__)] for kind in kinds]
    external = Annotated[_external(base), Tag("module:function")]

    def tag(value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        return "module:function" if isinstance(kind, str) and is_reference(kind) else kind

    union = functools.reduce(operator.or_, [*tagged, external])
    return Annotated[union, Discriminator(tag)]


def build_entry(
    entry: Section, registry: Mapping[str, Callable], base: type[Section] = Section, *first
):
    """Result of the function named by an entry for the entry's options."""
    kind: str = entry.kind  # pyright: ignore[reportAttributeAccessIssue]
    builder = registry[kind] if kind in registry else resolve(kind)
    return builder(*first, **options_of(entry, base))


def options_of(entry: Section, base: type[Section] = Section) -> dict[str, Any]:
    """The options of an entry: all but its kind and the keys of its base."""
    known = {"kind", *base.model_fields}
    return {name: value for name, value in entry if name not in known}


def option_fields(builder: Callable) -> dict[str, Any]:
    """The parameters of `builder` as fields of a section, without those that it is called with."""
    hints = get_type_hints(builder)
    options = [p for p in inspect.signature(builder).parameters.values() if p.name not in GIVEN]
    return {
        p.name: (_toml_type(hints.get(p.name, Any)), ... if p.default is p.empty else p.default)
        for p in options
    }


def _toml_type(kind: Any) -> Any:
    """The type of a TOML value for the type of a parameter: lists for tuples."""
    return list[float] if getattr(kind, "__origin__", None) is tuple else kind


def _section_of(name: str, builder: Callable, base: type[Section]) -> type[Section]:
    fields: dict[str, Any] = {"kind": (Literal[name], ...)} | option_fields(builder)  # type: ignore
    return create_model(name, __base__=base, __doc__=inspect.getdoc(builder), **fields)


def _external(base: type[Section]) -> type[Section]:
    """A section of a function outside the registry, whose keys its signature gives."""

    class Named(base):
        """Function of yours, beside the job or installed."""

        model_config = ConfigDict(extra="allow")
        kind: str

        @model_validator(mode="after")
        def _as_signature(self):
            section = create_model("options", __base__=Section, **option_fields(resolve(self.kind)))
            try:
                section.model_validate(self.model_extra or {})
            except ValidationError as error:
                told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
                raise ValueError(
                    f"{self.kind} has the options {', '.join(section.model_fields) or 'none'}, "
                    f"and these do not fit: {'; '.join(told)}"
                ) from None
            return self

    return Named
