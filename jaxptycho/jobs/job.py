"""A job: the measurement, the model, and a list of steps."""

import functools
import operator
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, SerializeAsAny, Tag, model_validator

from ..runs.references import is_reference, resolve
from .context import Step
from .optimisation import Rate
from .sections import Probe, Propagator, Setup
from .steps import STEPS
from .steps.align import AlignStep
from .steps.refine import RefineStep
from .steps.views import ViewsStep

EXTERNAL = "module:function"
NOT_OF_SERIES = ("kind", "shape", "step_angstrom", "order")  # keys of a single scan


def _tag(value: Any) -> Any:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return EXTERNAL if isinstance(kind, str) and is_reference(kind) else kind


def _external(value: Any) -> Any:
    """The checked section of a step that is not registered."""
    if not isinstance(value, dict):
        return value
    section = resolve(value["kind"])
    if not (isinstance(section, type) and issubclass(section, Step)):
        raise ValueError(f"step kind {value['kind']!r} is no step; name a subclass of jobs.Step")
    return section.model_validate(value)


_registered = [Annotated[section, Tag(kind)] for kind, section in STEPS.items()]
_separate = Annotated[SerializeAsAny[Step], BeforeValidator(_external), Tag(EXTERNAL)]
AnyStep = Annotated[functools.reduce(operator.or_, [*_registered, _separate]), Discriminator(_tag)]


class Job(Setup):
    """Measurement, model, and steps from the one to the other."""

    step: list[AnyStep] = Field(default=[], description="what is done, in this order")

    @model_validator(mode="before")
    @classmethod
    def _default_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("step") in (None, []):
            specimen = values.get("specimen")
            kind = specimen.get("kind") if isinstance(specimen, dict) else None
            return values | {"step": default_steps(kind == "volume")}
        return values

    @model_validator(mode="after")
    def _possible_in_a_series(self):
        if not self.is_series:
            return self
        far_field = self.detector.effective_distance_angstrom is None
        refused = {
            "data.near_field": not self.data.near_field,
            f"probe.kind = {self.probe.kind!r}": self.probe.kind != "relaxed",
            "probe.basis": self.probe.basis == Probe().basis,
            **{f"scan.{name}": self.scan.is_default(name) for name in NOT_OF_SERIES},
            "[propagator]": self.propagator == Propagator(),
            "detector.effective_distance_angstrom": far_field,
            "figures.band_pass_angstrom": self.figures.band_pass_angstrom is None,
        }
        for what, absent in refused.items():
            if not absent:
                raise ValueError(
                    f'{what} does not apply to a tilt series (specimen.kind = "volume"); '
                    "leave it out"
                )
        return self

    @model_validator(mode="after")
    def _in_order(self):
        kinds: list[str] = []
        for number, step in enumerate(self.step):
            kind: str = step.kind  # pyright: ignore[reportAttributeAccessIssue]
            if step.simulates and number:
                raise ValueError(f"step.{number} simulates, which only the first step can")
            if step.needs and not set(step.needs) & set(kinds):
                raise ValueError(
                    f"step.{number} ({kind}) requires a step {' or '.join(step.needs)} before it"
                )
            resets = getattr(step, "reset_volume", False)
            if resets and "atoms" in kinds:
                raise ValueError(
                    f"step.{number} begins with an empty volume, which is atoms since "
                    f"step.{kinds.index('atoms')}; leave reset_volume out"
                )
            kinds.append(kind)
        simulates = self.step[0].simulates
        if self.data.file is None and not simulates:
            raise ValueError(
                "data.file is missing; give the measurement, or begin with a step `simulate`"
            )
        if self.data.file is not None and simulates:
            raise ValueError(
                "data.file names a measurement, and step.0 simulates one; leave one of them out"
            )
        return self

    @property
    def epochs(self) -> int:
        """Number of epochs of all steps of the run."""
        return sum(step.epochs for step in self.step if isinstance(step, RefineStep))

    @property
    def slices(self) -> int:
        """Largest number of slices of any step."""
        own = getattr(self.specimen, "slices", None) or 1
        return max([own, *(getattr(step, "slices", None) or 1 for step in self.step)])


def default_steps(series: bool) -> list[Step]:
    """Default steps: those of a tilt `series`, or one refinement."""
    if not series:
        return [RefineStep.model_validate({"kind": "refine"})]
    probe = Rate(rate=1e-3, optimiser="adam")
    nowhere_negative = {"kind": "positivity", "each_step": True}
    common: dict[str, Any] = {
        "kind": "refine",
        "batch": 105,
        "optimiser": "layerwise_adam",
        "constraint": [nowhere_negative],
    }
    rate = {"specimen": Rate(rate=3e-2), "probe": probe}
    falling = {"specimen": Rate(rate=3e-2, schedule="cosine"), "probe": probe}
    # as they suited simulated particles of light and heavy atoms: benchmarks/bench_tomography.py
    coarse = {"name": "coarse", "epochs": 4, "poses": "shifts", "reset_volume": True}
    fine = {"name": "fine", "epochs": 9, "poses": "all"}
    return [
        ViewsStep(kind="views"),
        AlignStep(kind="align", iterations=20),
        RefineStep.model_validate(common | coarse | {"rates": rate}),
        RefineStep.model_validate(common | fine | {"rates": falling}),
    ]
