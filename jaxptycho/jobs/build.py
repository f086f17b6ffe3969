"""From a checked job to the values that a reconstruction is made of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data import ALONE, Dataset, Sharing
from ..data.half_sets import checkerboard, thinned
from ..data.ordering import spread
from ..inverse import losses
from ..inverse.constraints import registry as constraints
from ..inverse.penalties import PENALTIES, sum_of
from ..inverse.solvers.accumulation import gathered
from ..inverse.solvers.parameter_scaling import in_natural_units
from ..inverse.solvers.preconditioning import PRECONDITIONERS
from ..inverse.step import path_of, per_part, require_parameters, unwrapped
from ..io.datasets import read
from ..model import Model
from ..parts.detector import AbstractDetector, Background, Blurred, Gain, Masked, ModulationTransfer
from ..parts.indexed import PerShot, PerView
from ..parts.probe import AberratedProbe, RelaxedProbe
from ..parts.propagator import AbstractPropagator, AngularSpectrum, BandLimited, Fresnel, Tilted
from ..parts.scan import AffineScan, FreeScan
from ..parts.specimen import AbstractSpecimen
from ..physics.modes import make_modes
from ..start.affine import find_affine, pivot, place_nominal
from ..start.descan import beam_tilt, descan_rows
from ..start.guess import guess_model, per_shot
from ..start.reslice import with_modes, with_slices
from .references import is_reference, resolve
from .schema import OPTIMISERS, Camera, Data, Job, Probe, Propagator, Rate, Scan, Scheduled, Section, Specimen, Stage
from .tilted_beam import leaning, margin_of, require_leaning
from .tomogram_schema import SeriesProbe, TomogramJob

NOT_OF_FILE = {"file", "half", "fraction", "dose_fraction", "hold_out"}
FIELDS, QUANTA = ("black", "white"), ("first", "second")  # halves of the shots, halves of every shot


def read_data(section: Data, seed: int = 0, sharing: Sharing = ALONE) -> Dataset:
    """The dataset that a job names, its own values in the place of the file's; `seed` draws shots and quanta, and
    `sharing` says what each process looks at."""
    known = {
        name: value for name, value in section if name not in NOT_OF_FILE and value is not None and value is not False
    }
    data = read(section.file, sharing, **known)
    if section.dose_fraction < 1:
        data = thinned(data, seed=2 * seed + 1, fraction=section.dose_fraction, sharing=sharing)
    if section.half in QUANTA:
        data = thinned(data, QUANTA.index(section.half), 2 * seed, sharing=sharing)
    fields = checkerboard(data)[FIELDS.index(section.half)] if section.half in FIELDS else map(np.arange, data.n_shots)
    pairs = enumerate(zip(fields, data.positions, strict=True))
    shots = [
        mine[spread(positions[mine], section.fraction, seed * data.n_views + view)] for view, (mine, positions) in pairs
    ]
    return data if sum(map(len, shots)) == sum(data.n_shots) else data.subset(shots, sharing)


def known_of(job: Job | TomogramJob) -> dict[str, Any]:
    """What a job says in the place of the file, under the names of the native format."""
    probe, detector, specimen = job.probe, job.detector, getattr(job, "specimen", None)
    return {
        "semiangle_mrad": probe.semiangle_mrad,
        "defocus_angstrom": probe.defocus_angstrom,
        "thickness_angstrom": getattr(specimen, "thickness_angstrom", None),
        "slices": max([getattr(specimen, "slices", 2)] + [stage.slices or 1 for stage in job.stage]),
        "effective_distance_angstrom": getattr(detector, "effective_distance_angstrom", None),
    }


def of_instrument(job: Job | TomogramJob) -> dict[str, Any]:
    """What a job says of probe and detector, as keywords of `guess_model`."""
    probe, detector = job.probe, job.detector
    return {
        "modes": probe.modes,
        "probe": probe.start,
        "semiangle": None if probe.semiangle_mrad is None else 1e-3 * probe.semiangle_mrad,
        "defocus": probe.defocus_angstrom,
        "aberrations": probe.aberrations_angstrom,
        "supersample": detector.supersample,
        "extend": detector.extend,
        "descan": detector.descan,
    }


def build_model(job: Job, data: Dataset, matrix: np.ndarray | None = None) -> Model:
    """The model that a job starts from; `matrix` is the linear map of an affine scan, by default the identity."""
    nominal = data
    if matrix is not None:  # the specimen reaches as far as the mapped positions
        data = place_nominal(data, matrix)
    probe, specimen, detector, leans = job.probe, job.specimen, job.detector, job.propagator.leaning
    if leans:
        require_leaning(job, data)
    separate = is_reference(specimen.kind)
    if specimen.options and not separate:
        raise ValueError(
            f"specimen.options are keywords of a module:function, and specimen.kind is {specimen.kind!r}; leave them out"
        )
    model = guess_model(
        data,
        slices=specimen.slices,
        thickness=specimen.thickness_angstrom or data.about.get("thickness_angstrom"),
        specimen="phase" if separate else specimen.kind,
        periodic=specimen.periodic,
        margin=margin_of(job, data) if leans else specimen.margin_angstrom,
        near_field=near_field_distance(job, data),
        **of_instrument(job),
    )
    if separate:
        model = replace(model, specimen=build_specimen(specimen, model))
    model = replace(
        model,
        probe=_probe(probe, model.probe, data, detector),
        scan=_scan(job.scan, nominal, matrix),
        propagator=_propagator(job.propagator, data),
        detector=_detector(detector, model.detector, data),
    )
    return leaning(job, model, data) if leans else model


def build_specimen(section: Specimen, model: Model) -> AbstractSpecimen:
    """What the job's own function makes of the empty specimen of `model` and its grid."""
    made = resolve(section.kind)
    try:
        specimen = made(model.specimen, model.grid, **section.options)
    except TypeError as error:
        raise ValueError(
            f"specimen.kind = {section.kind!r} was called with an empty specimen, the grid and specimen.options, and "
            f"refused: {error}"
        ) from error
    if not isinstance(specimen, AbstractSpecimen):
        raise ValueError(
            f"specimen.kind = {section.kind!r} returned a {type(specimen).__name__}; it must return a specimen "
            "(jaxptycho.AbstractSpecimen)"
        )
    return specimen


def with_probe(job: TomogramJob, model: Model, data: Dataset) -> Model:
    """The model with a probe of the kind that the job wants."""
    return replace(model, probe=_probe(job.probe, model.probe, data, job.detector))


def with_camera(section: Camera, model: Model, data: Dataset) -> Model:
    """The model with what the job says of the camera."""
    return replace(model, detector=_detector(section, model.detector, data))


def near_field_distance(job: Job, data: Dataset) -> float | None:
    """Effective distance of an in-line hologram [Å], None in the far field."""
    return job.detector.effective_distance_angstrom or data.about.get("effective_distance_angstrom")


def descan_statement(job: Job | TomogramJob, data: Dataset) -> dict[str, str]:
    """The shift of the patterns that a job models, in words; empty where there is none."""
    near = isinstance(job, Job) and near_field_distance(job, data) is not None
    return {} if near else descan_rows(data, job.detector.descan)


def _per_shot(value, data: Dataset) -> Any:
    """An own copy of `value` for every shot of every view."""
    views = () if data.n_views == 1 else (data.n_views,)
    own = PerShot(jnp.tile(value, (*views, max(data.n_shots), *(1 for _ in jnp.shape(value)))))
    return PerView(own) if views else own


def _probe(section: Probe | SeriesProbe, probe: Any, data: Dataset, camera: Camera):
    if section.kind == "pixel":
        return probe
    if section.kind == "relaxed":
        basis = jnp.stack([make_modes(wave, section.basis) for wave in probe.waves], 1)
        return RelaxedProbe(basis, _per_shot(jnp.zeros(section.basis).at[0].set(1.0), data))
    about = data.about
    semiangle = section.semiangle_mrad or about.get("semiangle_mrad")
    if semiangle is None:
        raise ValueError("an aberrated probe wants probe.semiangle_mrad; neither the job nor the file gives it")
    if section.modes > 1:
        raise ValueError(f'an aberrated probe is one wave; the job wants {section.modes} modes (use kind = "pixel")')
    defocus = section.defocus_angstrom
    defocus = about.get("defocus_angstrom", 0.0) if defocus is None else defocus
    return AberratedProbe(
        1e-3 * semiangle,
        {"defocus": defocus} | section.aberrations_angstrom,
        dose=float(jnp.sum(jnp.abs(probe.waves) ** 2)),
        centre=beam_tilt(data, camera.descan),
    )


def _scan(section: Scan, data: Dataset, matrix: np.ndarray | None):
    positions = per_shot(data)
    if section.kind == "free":
        return FreeScan(positions)
    residual = jax.tree.map(jnp.zeros_like, positions)
    matrix = np.eye(2) if matrix is None else matrix
    return AffineScan(positions, jnp.asarray(matrix, float), jnp.zeros(2), residual, jnp.asarray(pivot(data), float))


def found_map(job: Job, data: Dataset, say: Callable[[str], None]) -> np.ndarray:
    """Linear map of an affine scan, from the patterns (`start.affine`)."""
    free = job.model_copy(update={"scan": Scan()})
    return find_affine(data, lambda some: build_model(free, some), job.run.seed, say)


def _propagator(section: Propagator, data: Dataset) -> AbstractPropagator:
    result = {"fresnel": Fresnel, "angular_spectrum": AngularSpectrum}[section.kind]()
    if section.tilt_mrad is not None or section.tilt_per_shot:
        angles = 1e-3 * jnp.asarray(section.tilt_mrad or [0.0, 0.0], float)
        result = Tilted(_per_shot(angles, data) if section.tilt_per_shot else angles, result)
    return result if section.band_limit is None else BandLimited(result, section.band_limit)


def _detector(section: Camera, detector: AbstractDetector, data: Dataset) -> AbstractDetector:
    """The detector with what the job adds, in the order of the light's way; the mask comes last."""
    mask, result = (detector.mask, detector.detector) if isinstance(detector, Masked) else (None, detector)
    if section.per_shot_intensity:
        result = Gain(_per_shot(1.0, data), result)
    if section.blur_pixels is not None:
        result = Blurred(jnp.asarray(section.blur_pixels, float), result)
    if section.mtf_file is not None:
        result = ModulationTransfer(jnp.asarray(read_mtf(section.mtf_file), float), result)
    if section.background is not None:
        result = Background(jnp.asarray(section.background, float), result)
    return result if mask is None else Masked(mask, result)


def read_mtf(file: str) -> tuple[float, ...]:
    """The transfer function in the last column of a text file, from zero to Nyquist."""
    if not Path(file).is_file():
        raise ValueError(f"detector.mtf_file = {file}: there is no such file; give a text file of numbers")
    try:
        return tuple(map(float, np.loadtxt(file, ndmin=2)[:, -1]))
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"detector.mtf_file = {file} is no table of numbers ({error}); the transfer function from zero to Nyquist is "
            "required in its last column"
        ) from None


def change_model(stage: Stage, model: Model) -> Model:
    """The model of the last stage with the slices and modes of this one."""
    model = model if stage.slices is None else with_slices(model, stage.slices)
    return model if stage.modes is None else with_modes(model, stage.modes)


def build_loss(stage: Stage, budget_gib: float | None = None) -> Callable:
    """`loss(model, batch)` of a stage, on one device, whose gradient keeps within a budget [GiB]."""
    noise = losses.gaussian(stage.variance) if stage.loss == "gaussian" else getattr(losses, stage.loss)
    return losses.misfit(noise, budget=None if budget_gib is None else budget_gib * 2**30)


def build_penalty(stage: Stage) -> Callable | None:
    """The sum of a stage's penalties, None if it has none."""
    terms = [PENALTIES[term.kind](**options(term, Section)) for term in stage.penalty]
    return sum_of(*terms) if terms else None


def build_constraints(stage: Stage, model: Model) -> tuple[Callable, list[tuple[Scheduled, Callable]]]:
    """What projects the model after each step of a stage that starts from `model`; and when and what, compiled, after
    its epochs."""
    made = [(term, constraints.build(term.kind, model, **options(term, Scheduled))) for term in stage.constraint]
    for _, project in made:
        eqx.filter_eval_shape(project, model)  # says at once what has no meaning for this model
    each_step = [project for term, project in made if term.each_step]

    def after_step(model):
        for project in each_step:
            model = project(model)
        return model

    return after_step, [(term, eqx.filter_jit(project)) for term, project in made if not term.each_step]


def options(term, base) -> dict[str, Any]:
    """What a term says to its builder: all but its kind and its base's keys."""
    return {name: value for name, value in term if name != "kind" and name not in base.model_fields}


# solvers for which a gradient and the batch it belongs to go together
OF_ONE_BATCH = {
    "lbfgs": "searches its steps on",
    "epie": "divides by the illumination of",
    "rpie": "divides by the illumination of",
}


def build_optimiser(stage: Stage, steps: int) -> optax.GradientTransformation:
    """The optimiser of a stage whose epochs have `steps` batches."""
    filters = [PRECONDITIONERS[term.kind](**options(term, Section)) for term in stage.precondition]
    used = {stage.optimiser, *(rate.optimiser for rate in stage.rates.values() if rate.optimiser)}
    if filters and ("lbfgs" in used or not any(of_specimen(part) for part in stage.rates)):
        raise ValueError(
            f"stage {stage.name!r} has preconditions and {', '.join(sorted(used))} for {', '.join(stage.rates) or 'nothing'}; "
            "they filter the gradient of the specimen, so give it a rate, and an optimiser that takes one"
        )
    of_one = sorted(used & OF_ONE_BATCH.keys())
    if of_one and stage.accumulate > 1:
        raise ValueError(
            f"stage {stage.name!r} accumulates {stage.accumulate} batches for {of_one[0]}, which {OF_ONE_BATCH[of_one[0]]} one; "
            "leave accumulate out and give it larger batches, or take another optimiser"
        )
    if stage.optimiser == "lbfgs":  # one line search for all parts
        return in_natural_units(_only(tuple(stage.rates), _optimiser(stage, "lbfgs", None, stage.options)))

    def of_rate(rate: Rate, batches: int):
        """What moves a part once in so many batches."""
        options = rate.options if rate.optimiser else stage.options | rate.options
        return _optimiser(
            stage, rate.optimiser or stage.optimiser, _schedule(rate, stage.epochs, steps, batches), options
        )

    own = {
        part: gathered(of_rate(rate, stage.accumulate), stage.accumulate, of_rate(rate, 1))
        for part, rate in stage.rates.items()
    }
    return per_part({part: optax.chain(*filters, one) if of_specimen(part) else one for part, one in own.items()})


def of_specimen(part: str) -> bool:
    """Whether a path names the specimen or a field of it."""
    return part.split(".")[0] == "specimen"


def _optimiser(stage: Stage, name: str, rate, further: dict[str, Any]):
    try:
        return OPTIMISERS[name](rate, **further)
    except TypeError as error:
        raise ValueError(f"stage {stage.name!r} has wrong options for {name}: {error}") from None


def _schedule(rate: Rate, epochs: int, steps: int, batches: int = 1):
    """The course of a rate over the steps of a stage, one in so many batches."""
    whole, delay = max(1, (epochs - rate.start) * steps // batches), rate.start * steps // batches
    if rate.schedule == "cosine":
        course = optax.cosine_decay_schedule(rate.rate, whole, rate.end)
    elif rate.schedule == "exponential":
        course = optax.exponential_decay(rate.rate, whole, rate.end)
    elif rate.schedule == "linear":
        course = optax.linear_schedule(rate.rate, rate.rate * rate.end, whole)
    else:
        course = rate.rate
    if not delay:
        return course
    return optax.join_schedules(
        [optax.constant_schedule(0.0), course if callable(course) else lambda _: rate.rate], [delay]
    )


def _only(parts: tuple[str, ...], inner) -> optax.GradientTransformationExtraArgs:
    """`inner`, which sees no gradient but that of `parts`."""

    def covers(part, path):
        return f"{path_of(path)}.".startswith(f"{unwrapped(part)}.")

    def keep(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if any(covers(part, path) for part in parts) else jnp.zeros_like(leaf), tree
        )

    def init(params):
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        require_parameters(params, [part for part in parts if not any(covers(part, path) for path in paths)])
        return inner.init(params)

    def update(grads, state, params=None, **extra):
        grads = keep(grads)
        updates, state = inner.update(grads, state, params, **(extra | {"grad": grads}))
        return keep(updates), state

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore
