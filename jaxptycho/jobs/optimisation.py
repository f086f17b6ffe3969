"""Section of a job on loss, optimiser and constraints, and their construction."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import equinox as eqx
import optax
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from ..data.ordering import ORDERS
from ..inverse import losses
from ..inverse.alike import made_once
from ..inverse.automatic import (
    FEWEST,
    MOST,
    STEPS,
    batch_size,
    begins_tied,
    keep_passive,
    proportions,
)
from ..inverse.constraints.registry import CONSTRAINTS, wants_model
from ..inverse.losses import LOSSES
from ..inverse.penalties import PENALTIES, sum_of
from ..inverse.solvers.accumulation import accumulate_gradients
from ..inverse.solvers.preconditioning import PRECONDITIONERS
from ..inverse.solvers.registry import ENGINES, JOINT, OF_ALL_SHOTS, SOLVERS
from ..inverse.step import per_part
from ..model import Model
from ..parts.indexed import PerShot, axis_size
from ..runs.references import is_reference, resolve
from .schema import Scheduled, Section, build_entry, entry_of, key, one_of, options_of, suggest

PARTS = ("probe", "specimen", "scan", "propagator", "detector")
AUTO = "auto"
# solvers for which a gradient and the batch it belongs to go together
OF_ONE_BATCH = {"lbfgs": "searches its steps on"} | dict.fromkeys(
    ENGINES, "divides by the illumination of"
)
BESIDE_ENGINE = 5e-3  # rate of Adam for the parts that an engine does not update


class Rate(Section):
    """Rate at which a part is refined."""

    rate: float = key("step in natural units, where every parameter is about 1", ge=0)
    schedule: Literal["constant", "cosine", "exponential", "linear"] = key(
        "course over the step", "constant"
    )
    end: float = key("fraction of the rate that is left at the end", 0.1, ge=0)
    start: int = key("first epoch of the step in which the part moves", 0, ge=0)
    optimiser: one_of(SOLVERS, "optimiser", references=True) | None = key(
        "another optimiser than the step's", None
    )
    options: dict[str, Any] = key("further options of this optimiser", {})


def _rate(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"rate": value} if number else value


def nested_rates(values: Any) -> Any:
    """Rates with their fields as paths: {scan: {positions: 0.01}}, as TOML reads scan.positions."""
    if not isinstance(values, dict):
        return values
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict) and value and not set(value) & set(Rate.model_fields):
            inside = nested_rates(value).items()
            flat |= {f"{name}.{field}": rate for field, rate in inside}
        else:
            flat[name] = value
    return flat


def _of_parts(values: dict) -> dict:
    for name in values:
        if name.split(".")[0] not in PARTS:
            raise ValueError(f"no part is called {name}; {suggest(name, PARTS)}")
    return values


def _named(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Given = Annotated[
    dict[str, Annotated[Rate, BeforeValidator(_rate)]],
    BeforeValidator(nested_rates),
    AfterValidator(_of_parts),
]


def _kind_of_rates(value: Any) -> str:
    return "(word)" if isinstance(value, str) else "(table)"


Rates = Annotated[
    Annotated[Literal["auto"], Tag("(word)")] | Annotated[Given, Tag("(table)")],
    Discriminator(_kind_of_rates),
]
Loss = Annotated[entry_of(LOSSES), BeforeValidator(_named)]


class Optimisation(Section):
    """Epochs of steps that minimise a loss."""

    name: str = key("name of the step in the history", "refine")
    epochs: int = key(
        "number of times that every shot is used; with automatic rates the greatest number",
        50,
        ge=1,
    )
    batch: int | None = key(
        f"shots of an optimiser step; default: about {STEPS} steps an epoch, of {FEWEST} to "
        f"{MOST} shots",
        None,
        64,
        ge=1,
    )
    order: one_of(ORDERS, "order of shots") = key(
        "random, compact (neighbours together) or sparse (spread out)", "random"
    )
    loss: Loss = Field(
        "amplitude",
        description=f'{", ".join(LOSSES)}, with options as {{kind = "gaussian", variance = 2.0}}, '
        "or module:function",
        validate_default=True,
    )
    optimiser: one_of(SOLVERS, "optimiser", references=True) = key(
        "adam, layerwise_adam (volumes), sgd, momentum, lbfgs (finds its steps); "
        f"{', '.join(ENGINES)} (specimen and probe; rate 1 is a full step); any other of optax, or "
        "module:function",
        "adam",
    )
    options: dict[str, Any] = key("further options of the optimiser, such as b1 of adam", {})
    accumulate: int = key(
        "number of batches whose gradients are averaged before each update of what they share; as "
        "many as views: all views together",
        1,
        ge=1,
    )
    rates: Rates = key(
        "auto: all parts, with rates found by a range test, that fall when the held-out loss no "
        "longer does, and then end the step; or a table of rates of the parts, or fields by their "
        "path (scan.positions), that are refined",
        AUTO,
    )
    found: dict[str, float] = key(
        "factor of the automatic rate of every part that the range test has found, as the run "
        "writes it; given, no test is made",
        {},
    )
    tied: bool | None = key(
        "with automatic rates: all slices move alike until the held-out loss no longer falls; "
        "default: where identical slices are together thicker than the depth of field",
        None,
        True,
    )
    passive: bool | None = key(
        "|t| ≤ 1 after every step, as matter does not amplify; default: with automatic rates of a "
        "specimen that can absorb, unless a constraint amplitude_clamp is given",
        None,
        True,
    )
    precondition: list[entry_of(PRECONDITIONERS)] = key("filters of the specimen's gradient", [])
    constraint: list[entry_of(CONSTRAINTS, Scheduled)] = key(
        "projections after chosen epochs, or each optimiser step", []
    )
    penalty: list[entry_of(PENALTIES)] = key("terms added to the loss", [])

    @model_validator(mode="after")
    def _ties_with_automatic_rates(self) -> "Optimisation":
        if self.tied and self.rates != AUTO:
            raise ValueError(
                "tied = true came with rates, and slices are freed in the course of automatic "
                "ones; leave rates out, or use the constraint identical_slices"
            )
        return self

    @property
    def solvers(self) -> set[str]:
        """Names of all optimisers in use."""
        given = () if self.rates == AUTO else self.rates.values()
        return {self.optimiser, *(rate.optimiser for rate in given if rate.optimiser)}

    @property
    def automatic(self) -> bool:
        """True if the rates are found and fall by the loss."""
        return self.rates == AUTO

    def batch_of(self, shots: int) -> int:
        """Shots of an optimiser step on a measurement of `shots`."""
        if self.batch is not None:
            return self.batch
        return shots if self.solvers & OF_ALL_SHOTS else batch_size(shots)

    def ties(self, model: Model) -> bool:
        """True if the slices of `model` begin tied."""
        if not self.automatic or self.optimiser in OF_ONE_BATCH:
            return False
        return begins_tied(model) if self.tied is None else self.tied

    @property
    def keeps_passive(self) -> bool:
        """True if |t| ≤ 1 is kept where the specimen can absorb."""
        clamped = any(term.kind == "amplitude_clamp" for term in self.constraint)
        return (self.automatic and not clamped) if self.passive is None else self.passive

    def rates_of(self, model: Model) -> dict[str, Rate]:
        """Rates of the parts; automatic ones relative to each other."""
        if self.rates != AUTO:
            return self.rates
        rates = proportions(model)
        if self.optimiser not in ENGINES:
            return {part: Rate(rate=rate) for part, rate in rates.items()}

        def rate_of(part: str, rate: float) -> Rate:
            if getattr(getattr(model, part), "pixelwise", ()):
                return Rate(rate=1.0)
            return Rate(rate=BESIDE_ENGINE * rate, optimiser="adam")

        return {part: rate_of(part, rate) for part, rate in rates.items()}

    def known_rates(self, parts: Iterable[str]) -> dict[str, float]:
        """Factors of the rates of `parts` where no range test has to find them."""
        return dict.fromkeys(parts, 1.0) if self.optimiser in ENGINES else self.found

    @property
    def needs_first_model(self) -> bool:
        """True if a constraint is made from the model that the step starts from."""
        return any(_takes_model(term.kind) for term in self.constraint)

    @property
    def remedy(self) -> str:
        """Remedy for a divergence."""
        engines = sorted(self.solvers & set(ENGINES))
        if not engines:
            return "lower the rate of this part or constrain it"
        keys = "rates" if self.rates == AUTO else " and ".join(f"rates.{p}" for p in self.rates)
        return f"the steps of {', '.join(engines)} are too long; lower {keys} (1 is a full step)"


def _takes_model(kind: str) -> bool:
    return wants_model(CONSTRAINTS[kind] if kind in CONSTRAINTS else resolve(kind))


def build_loss(section: Optimisation, budget_gib: float | None = None) -> Callable:
    """`loss(model, batch)` on one device, whose gradient keeps within a budget [GiB]."""
    budget = None if budget_gib is None else budget_gib * 2**30
    return losses.from_noise_or_loss(
        _function_of(section.loss), options_of(section.loss), budget=budget
    )


def _function_of(entry: Any) -> Callable:
    return resolve(entry.kind) if is_reference(entry.kind) else LOSSES[entry.kind]


def build_penalty(section: Optimisation) -> Callable | None:
    """The sum of the penalties, None without any."""
    terms = [build_entry(term, PENALTIES) for term in section.penalty]
    return sum_of(*terms) if terms else None


def build_constraints(
    section: Optimisation, model: Model
) -> tuple[Callable[[Model], Model], list[tuple[Scheduled, Callable]]]:
    """Projection after each optimiser step of a step that starts from `model`; and the compiled
    ones after its epochs, with their schedules."""
    made = []
    for term in section.constraint:
        first = (model,) if _takes_model(term.kind) else ()
        project = build_entry(term, CONSTRAINTS, Scheduled, *first)
        eqx.filter_eval_shape(project, model)  # raises where it has no meaning for this model
        made.append((term, project))
    each_step = [project for term, project in made if term.each_step]
    if section.keeps_passive:
        each_step.append(keep_passive(model))

    def after_step(model: Model) -> Model:
        for project in each_step:
            model = project(model)
        return model

    after_epoch = [
        (term, made_once(eqx.filter_jit, project)) for term, project in made if not term.each_step
    ]
    return after_step, after_epoch


def build_optimiser(
    section: Optimisation, model: Model, steps: int
) -> optax.GradientTransformation:
    """The optimiser of a model in epochs of `steps` batches."""
    rates = section.rates_of(model)
    filters = [build_entry(term, PRECONDITIONERS) for term in section.precondition]
    used = section.solvers
    if filters and ("lbfgs" in used or not any(of_specimen(part) for part in rates)):
        raise ValueError(
            f"step {section.name!r} has preconditions and {', '.join(sorted(used))} for "
            f"{', '.join(rates) or 'nothing'}; they filter the gradient of the specimen, "
            "so give it a rate, and an optimiser that takes one"
        )
    of_one = sorted(used & OF_ONE_BATCH.keys())
    if of_one and section.accumulate > 1:
        raise ValueError(
            f"step {section.name!r} accumulates {section.accumulate} batches for {of_one[0]}, "
            f"which {OF_ONE_BATCH[of_one[0]]} one; leave accumulate out and give it larger "
            "batches, or take another optimiser"
        )

    def of_rate(rate: Rate, batches: int) -> optax.GradientTransformation:
        """Optimiser of a part, which updates it every `batches` batches."""
        options = rate.options if rate.optimiser else section.options | rate.options
        schedule = _schedule(rate, section.epochs, steps, batches)
        return _solver(section, rate.optimiser or section.optimiser, schedule, options)

    def of_part(part: str, rate: Rate) -> optax.GradientTransformation:
        several = section.accumulate
        one = accumulate_gradients(of_rate(rate, several), several, of_rate(rate, 1))
        return optax.chain(*filters, one) if of_specimen(part) else one

    joint = {part: r for part, r in rates.items() if (r.optimiser or section.optimiser) in JOINT}
    apart = {part: of_part(part, rate) for part, rate in rates.items() if part not in joint}
    together = _joint_solver(section, joint, filters, steps, model) if joint else {}
    return per_part(apart | together)


def _joint_solver(
    section: Optimisation, rates: dict[str, Rate], filters: list[Any], steps: int, model: Model
) -> dict[Any, optax.GradientTransformation]:
    """The solver that finds the steps of several parts together, by the names of these parts."""
    rate = next(iter(rates.values()))
    name = rate.optimiser or section.optimiser
    if name != "lbfgs" and len({one.model_dump_json() for one in rates.values()}) > 1:
        raise ValueError(
            f"step {section.name!r} has different rates for {', '.join(rates)}, whose steps {name} "
            "finds together; give them one rate"
        )
    options = rate.options if rate.optimiser else section.options | rate.options
    if name in OF_ALL_SHOTS:
        options = {"shots": axis_size(model.scan, PerShot)} | options
    schedule = None if name == "lbfgs" else _schedule(rate, section.epochs, steps)
    solver = _solver(section, name, schedule, options)
    specimen = filters if any(map(of_specimen, rates)) else []
    return {tuple(rates): optax.chain(*specimen, solver) if specimen else solver}


def of_specimen(part: str) -> bool:
    """True if a path names the specimen or a field of it."""
    return part.split(".")[0] == "specimen"


def _solver(section: Optimisation, name: str, rate: Any, options: dict[str, Any]) -> Any:
    make = resolve(name) if is_reference(name) else SOLVERS[name]
    try:
        return make(rate, **options)
    except TypeError as error:
        raise ValueError(f"step {section.name!r} has wrong options for {name}: {error}") from None


def _schedule(rate: Rate, epochs: int, steps: int, batches: int = 1) -> Any:
    """The course of a rate over a step of epochs, one value every `batches` batches."""
    length = max(1, (epochs - rate.start) * steps // batches)
    delay = rate.start * steps // batches
    if rate.schedule == "cosine":
        course = optax.cosine_decay_schedule(rate.rate, length, rate.end)
    elif rate.schedule == "exponential":
        course = optax.exponential_decay(rate.rate, length, rate.end)
    elif rate.schedule == "linear":
        course = optax.linear_schedule(rate.rate, rate.rate * rate.end, length)
    else:
        course = rate.rate
    if not delay:
        return course
    later = course if callable(course) else lambda _: rate.rate
    return optax.join_schedules([optax.constant_schedule(0.0), later], [delay])
