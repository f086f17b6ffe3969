"""What a job may say: every section and key, its unit, its default and its meaning, once.

The commented jobs of `jaxptycho new`, the checks and the documentation all come from here.
Options of constraints and penalties are those of their builders in `inverse`.
"""

import functools
import inspect
import operator
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import optax
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from ..data.ordering import ORDERS
from ..inverse.constraints.registry import CONSTRAINTS
from ..inverse.penalties import PENALTIES
from ..inverse.solvers import pie
from ..inverse.solvers.layerwise_adam import even_adam
from ..inverse.solvers.preconditioning import PRECONDITIONERS
from ..io.arrangement import POSITION_UNITS
from ..io.datasets import ORIGINS, SCAN_TRANSFORMS
from ..io.instrument import out_of_range
from ..physics.aberrations import NAMES as ABERRATIONS
from ..start.descan import DESCANS
from ..start.guess import PROBES, SPECIMENS
from .references import is_reference


class Section(BaseModel):
    """A table of a job: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def key(about: str, default: Any = ..., example: Any = None, **limits) -> Any:
    """A documented key; `example` stands in a commented job where there is no default."""
    return Field(default, description=about, examples=None if example is None else [example], **limits)


def one_of(names, what: str, references: bool = False):
    """A string out of `names`, or `module:function` where `references` are allowed."""

    def check(value: str) -> str:
        if value not in names and not (references and is_reference(value)):
            raise ValueError(f"no such {what}; {suggest(value, names)}")
        return value

    return Annotated[str, AfterValidator(check)]


def in_unit(name: str):
    """A number that the property `name` of an instrument may have in its unit."""

    def check(value: float) -> float:
        if beyond := out_of_range(name, value):
            raise ValueError(beyond)
        return value

    return Annotated[float, AfterValidator(check)]


def suggest(name: str, names) -> str:
    """'did you mean …?', or all that is known where nothing is near."""
    near = get_close_matches(name, list(names), 1, 0.55)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(names))}"


def _aberrations(values: dict[str, float]) -> dict[str, float]:
    for name in values:
        if name not in ABERRATIONS:
            raise ValueError(f"no aberration is called {name}; {suggest(name, ABERRATIONS)}")
    return values


Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Aberrations = Annotated[dict[str, float], AfterValidator(_aberrations)]
Semiangle = in_unit("semiangle_mrad")


class Data(Section):
    """What was measured, and what the file does not say of it."""

    file: str = key("the measurement: native HDF5 or CXI, relative to this job")
    voltage_kv: in_unit("voltage_kv") | None = key("acceleration voltage, if not in the file", None, 300.0)
    wavelength_angstrom: in_unit("wavelength_angstrom") | None = key("wavelength of anything but electrons", None, 1.4)
    pixel_angstrom: in_unit("pixel_angstrom") | None = key("pixel of the object, if not in the file", None, 0.3)
    dk_inverse_angstrom: float | None = key("frequency step of the detector, instead of the pixel", None, 0.025, gt=0)
    scan_transform: one_of(SCAN_TRANSFORMS, "scan transform") = key(
        f"how the scan's axes lie on the detector's: {', '.join(SCAN_TRANSFORMS)}", "none"
    )
    position_unit: one_of(POSITION_UNITS, "unit of positions") = key(
        f"unit of the positions in the file: {', '.join(POSITION_UNITS)} (of the object)", "angstrom"
    )
    zero_frequency: Literal["middle", "corner"] = key(
        "where the patterns in the file have their zero frequency", "middle"
    )
    counts_per_electron: float = key("counts that one electron makes, by which all are divided", 1.0, gt=0)
    bad_data: Literal["leave_out", "keep"] = key(
        "pixels that do not measure and shots that do not belong to the scan: leave_out with a warning, or keep",
        "leave_out",
    )
    tilt_axis_deg: float | None = key(
        "direction of a series' tilt axis in the patterns: 0 along y (down), 90 along x (right), 180 and 270 (or -90) the "
        "opposite senses; a positive tilt moves what is deeper along the beam by +x at 0, by -y at 90; patterns and positions "
        "are turned by multiples of 90 degrees, results are in their frame; default: that of the file, or 0",
        None,
        90.0,
        ge=-360,
        le=360,
    )
    origin: one_of(ORIGINS, "origin") = key(
        "of a series' positions: axis: counted from the tilt axis; middle: the axis goes through the middle of each view's scan",
        "axis",
    )
    near_field: bool = key("a CXI file of in-line holograms", False)
    focus_to_sample_angstrom: float | None = key("from the focus to the specimen, for holograms", None, 3.65e7, gt=0)
    half: Literal["all", "black", "white", "first", "second"] = key(
        "all; black or white fields of a checkerboard over the scan; first or second half of the quanta", "all"
    )
    fraction: float = key("use only this fraction of the shots, spread evenly over the scan", 1.0, gt=0, le=1)
    dose_fraction: float = key("use only this fraction of the quanta, drawn by lot", 1.0, gt=0, le=1)
    hold_out: float = key("fraction of the shots kept aside for the held-out loss", 0.02, ge=0, le=0.5)


class Illumination(Section):
    """What falls on the specimen."""

    modes: int = key("incoherent modes", 1, ge=1)
    start: one_of(PROBES, "start of a probe") = key(f"first guess from {', '.join(PROBES)}", "auto")
    semiangle_mrad: Semiangle | None = key("convergence semiangle, if not in the file", None, 21.4)
    defocus_angstrom: float | None = key("defocus, > 0 is underfocus, if not in the file", None, 150.0)
    aberrations_angstrom: Aberrations = key("further aberrations by name: C12a, C12b, C30 …", {})


class Probe(Illumination):
    """The illumination."""

    kind: Literal["pixel", "aberrated", "relaxed"] = key(
        "pixel: free in every pixel; aberrated: aperture and aberrations; relaxed: varies from shot to shot", "pixel"
    )
    basis: int = key("basis waves of a relaxed probe", 3, ge=2)


class Specimen(Section):
    """What is looked at."""

    kind: one_of(SPECIMENS, "kind of specimen", references=True) = key(
        "complex: phase and absorption; phase; weak: first Born approximation; potential: in volts; or "
        "module:function beside the job, called with an empty specimen, the grid and specimen.options",
        "complex",
    )
    options: dict[str, Any] = key("keywords of a function named by specimen.kind", {})
    slices: int = key("slices of a thick specimen", 1, ge=1)
    thickness_angstrom: float | None = key("thickness of all slices together", None, 120.0, gt=0)
    periodic: bool = key("the specimen continues periodically beyond its edges", False)
    margin_angstrom: float | None = key(
        "how far the object reaches beyond the windows; default 4 pixels", None, 10.0, ge=0
    )


class Scan(Section):
    """Where the probe stood."""

    kind: Literal["free", "affine"] = key(
        "free: separate positions; affine: a linear map, found before the first epoch, a shift and a residual", "free"
    )


class Propagator(Section):
    """How the wave travels between slices."""

    kind: Literal["fresnel", "angular_spectrum"] = key("paraxial, or exact", "fresnel")
    tilt_mrad: Pair | None = key("tilt of the specimen (y, x); refine it with rates.propagator", None, [0.0, 0.0])
    tilt_per_shot: bool = key("an own tilt for every shot", False)
    leaning: bool = key("tilts of the file's views lean the beam (a flat specimen, up to 10°; no volume turns)", False)
    axis_angstrom: float | None = key(
        "the tilt axis below the entrance face, where it leans; default half the thickness", None, 20.0
    )
    band_limit: float | None = key(
        "keep frequencies up to this fraction of Nyquist, 0.667 as a rule", None, 0.667, gt=0
    )


class Camera(Section):
    """What the camera makes of the wave."""

    blur_pixels: float | None = key("Gaussian point spread, sigma", None, 0.5, ge=0)
    mtf_file: str | None = key("text file: transfer function from zero to Nyquist, its last column", None, "mtf.txt")
    background: float | None = key("counts per pixel that come from elsewhere, a first value", None, 0.1, ge=0)
    supersample: int = key("model pixels per detector pixel and direction", 1, ge=1)
    extend: int = key("the model reaches this many times further than the detector", 1, ge=1)
    descan: one_of(DESCANS, "way to treat descan") = key(
        "bright-field disc off the middle: auto, a shift of the pattern by whole pixels; shared or shot, by all of it, the "
        "same or separate for every shot (refine it with rates.detector.shift); none, a tilt of the beam",
        "auto",
    )
    per_shot_intensity: bool = key("an own intensity for every shot; refine it with rates.detector", False)


class Detector(Camera):
    """What the camera makes of the wave."""

    effective_distance_angstrom: float | None = key(
        "in-line hologram: distance of the equivalent parallel beam, if not in the file", None, 3.6e7, gt=0
    )


def _optimisers() -> dict[str, Any]:
    """Every optimiser of optax that takes a rate, and those of `inverse.pie`, as `make(rate, **options)`."""
    found = {name: getattr(optax, name) for name in dir(optax) if name.islower()}
    ours = {"momentum": momentum, "even_adam": even_adam, "epie": engine(pie.epie), "rpie": engine(pie.rpie)}
    return {name: make for name, make in found.items() if _takes_rate(make)} | ours


def momentum(learning_rate, momentum: float = 0.9, nesterov: bool = True):
    """Gradient descent with momentum."""
    return optax.sgd(learning_rate, momentum, nesterov)


def engine(make):
    """A ptychographic engine whose steps are scaled by a rate, which may be a schedule."""

    def scaled(learning_rate: Any, **options):
        schedule: Any = learning_rate if callable(learning_rate) else optax.constant_schedule(learning_rate)
        return optax.chain(make(**options), optax.scale_by_schedule(schedule))

    return scaled


def _takes_rate(function) -> bool:
    return inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") == "learning_rate"


OPTIMISERS = _optimisers()


class Rate(Section):
    """How fast a part is refined."""

    rate: float = key("step in natural units, where every parameter is about 1", ge=0)
    schedule: Literal["constant", "cosine", "exponential", "linear"] = key("course over the stage", "constant")
    end: float = key("fraction of the rate that is left at the end", 0.1, ge=0)
    start: int = key("first epoch of the stage in which the part moves", 0, ge=0)
    optimiser: one_of(OPTIMISERS, "optimiser") | None = key("another optimiser than the stage's", None)
    options: dict[str, Any] = key("further options of this optimiser", {})


class Scheduled(Section):
    """What happens at chosen epochs of a stage."""

    start: int = key("first epoch of the stage", 0, ge=0)
    stop: int | None = key("the epoch before which it ends", None, None, ge=0)
    every: int = key("once in so many epochs", 1, ge=1)
    each_step: bool = key("after every step, in all epochs", False)

    @model_validator(mode="after")
    def _either(self):
        if self.each_step and (self.start, self.stop, self.every) != (0, None, 1):
            raise ValueError("what happens after each step has no start, stop or every; leave these or each_step out")
        return self

    def due(self, epoch: int) -> bool:
        """Whether it happens in this epoch of the stage."""
        after = epoch - self.start
        return after >= 0 and after % self.every == 0 and (self.stop is None or epoch < self.stop)


def option_fields(builder) -> dict[str, Any]:
    """The keyword parameters of `builder` as fields of a section."""
    hints = get_type_hints(builder)
    parameters = [p for p in inspect.signature(builder).parameters.values() if p.name != "model"]
    return {p.name: (_plain(hints[p.name]), ... if p.default is p.empty else p.default) for p in parameters}


def _plain(kind):
    """A TOML type for a parameter's type: lists for tuples."""
    return list[float] if getattr(kind, "__origin__", None) is tuple else kind


def any_of(registry, base) -> Any:
    """A section for each entry of `registry`, told apart by its `kind`."""

    def section(name: str, builder) -> Any:
        fields: dict[str, Any] = {"kind": (Literal[name], ...)} | option_fields(builder)  # type: ignore
        return create_model(name, __base__=base, __doc__=inspect.getdoc(builder), **fields)

    kinds = [section(name, builder) for name, builder in registry.items()]
    return Annotated[functools.reduce(operator.or_, kinds), Field(discriminator="kind")]


LOSSES = ("amplitude", "anscombe", "gaussian", "poisson")
PARTS = ("probe", "specimen", "scan", "propagator", "detector")


def _rate(value):
    return {"rate": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def nested_rates(values):
    """Rates with their fields as paths: of `{scan: {positions: 0.01}}`, as TOML reads scan.positions, scan.positions."""
    if not isinstance(values, dict):
        return values
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict) and value and not set(value) & set(Rate.model_fields):
            flat |= {f"{name}.{field}": rate for field, rate in nested_rates(value).items()}
        else:
            flat[name] = value
    return flat


def _rates(values: dict) -> dict:
    for name in values:
        if name.split(".")[0] not in PARTS:
            raise ValueError(f"no part is called {name}; {suggest(name, PARTS)}")
    return values


class Stage(Section):
    """One part of a reconstruction; each stage starts from the result of the last."""

    name: str = key("its name in the history", "refine")
    epochs: int = key("times that every shot is used", 50, ge=1)
    batch: int = key("shots per step", 64, ge=1)
    order: one_of(ORDERS, "order of shots") = key(
        "random, compact (neighbours together) or sparse (spread out)", "random"
    )
    loss: one_of(LOSSES, "loss") = key(f"{', '.join(LOSSES)}", "amplitude")
    variance: float = key("variance of a count, for the gaussian loss", 1.0, gt=0)
    optimiser: one_of(OPTIMISERS, "optimiser") = key(
        "adam, even_adam (volumes), sgd, momentum, lbfgs (finds its own steps), epie, rpie or any other of optax",
        "adam",
    )
    options: dict[str, Any] = key("further options of the optimiser, such as b1 of adam", {})
    accumulate: int = key(
        "batches that make one step of what they share by their mean gradient; as many as views: all views together",
        1,
        ge=1,
    )
    slices: int | None = key("change the number of slices", None, 4, ge=1)
    modes: int | None = key("change the number of probe modes", None, 3, ge=1)
    rates: Annotated[
        dict[str, Annotated[Rate, BeforeValidator(_rate)]], BeforeValidator(nested_rates), AfterValidator(_rates)
    ] = key(
        "parts, or fields by their path (scan.positions), that are refined, and how fast",
        {"specimen": Rate(rate=5e-3), "probe": Rate(rate=5e-3)},
    )
    precondition: list[any_of(PRECONDITIONERS, Section)] = key("filters of the specimen's gradient", [])
    constraint: list[any_of(CONSTRAINTS, Scheduled)] = key("projections after chosen epochs, or each step", [])
    penalty: list[any_of(PENALTIES, Section)] = key("terms added to the loss", [])


class Drawing(Section):
    """When figures are drawn."""

    every: int = key("draw them every so many epochs; 0: only at the end", 0, ge=0)


class Figures(Drawing):
    """What the figures show."""

    band_pass_angstrom: Pair | None = key("show only periods between these two, for noisy data", None, [15.0, 180.0])


class Run(Section):
    """Where and how long."""

    out: str | None = key("folder of the run, made new; default: the job's name", None, "run")
    seed: int = key(
        "decides everything drawn by lot: held-out shots, order of batches, fractions of shots and quanta", 0, ge=0
    )
    wall_time_minutes: float | None = key("stop cleanly after this time; resume goes on", None, 600.0, gt=0)
    devices: int | None = key("devices to use; default all", None, 1, ge=1)
    slabs: int = key("slabs along y of a specimen too large for one device; a divisor of the devices", 1, ge=1)
    budget_gib: float | None = key(
        "memory for the gradient on each device; default half of the device's", None, 4.0, gt=0
    )
    checkpoint_every: int = key("epochs between checkpoints", 10, ge=1)
    checkpoints_kept: int = key("the last ones, which stay", 2, ge=1)


class Job(Section):
    """A reconstruction from a file to pictures."""

    FILES: ClassVar = {"data": "file", "detector": "mtf_file"}

    data: Data
    probe: Probe = Probe()
    specimen: Specimen = Specimen()
    scan: Scan = Scan()
    propagator: Propagator = Propagator()
    detector: Detector = Detector()
    stage: list[Stage] = Field(default=[Stage()], min_length=1)
    figures: Figures = Figures()
    run: Run = Run()
