"""Sections of a job that describe the model and the run, and the setup of all of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator

from ..kernels.resampling import INTERPOLATIONS
from ..physics.camera_curves import CAMERA_CURVES
from ..start.descan import DESCANS
from ..start.guess import PROBES, SPECIMENS, STARTS
from .data_sections import Data, Scan, Start
from .schema import Aberrations, Pair, Section, Semiangle, Triple, entry_of, key, one_of

Thicknesses = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)]


class Probe(Section):
    """Illumination; in a tilt series its defocus is that at the height of the tilt axis."""

    kind: one_of(("pixel", "aberrated", "relaxed"), "kind of probe", references=True) = key(
        "pixel: free in every pixel; aberrated: aperture and aberrations; relaxed: varies from "
        "shot to shot; or module:function beside the job, called with the first guess of a probe, "
        "the grid and probe.options",
        "pixel",
    )
    options: dict[str, Any] = key("keywords of a function named by probe.kind", {})
    modes: int = key("number of incoherent modes", 1, ge=1)
    source_angstrom: float | None = key(
        "full width at half maximum of the source's image on the specimen, a Gaussian, of which an "
        'aberrated probe has several modes; refine it with rates."probe.source"',
        None,
        0.5,
        gt=0,
    )
    basis: int = key("number of basis waves of a relaxed probe", 3, ge=2)
    start: one_of(PROBES, "start of a probe") = key(f"first guess from {', '.join(PROBES)}", "auto")
    semiangle_mrad: Semiangle | None = key("convergence semiangle, if not in the file", None, 21.4)
    defocus_angstrom: float | None = key(
        "defocus, > 0 is underfocus, if not in the file", None, 150.0
    )
    aberrations_angstrom: Aberrations = key("further aberrations by name: C12a, C12b, C30 …", {})

    @model_validator(mode="after")
    def _modes_of_a_source(self):
        if self.kind == "aberrated" and (self.modes > 1) != (self.source_angstrom is not None):
            raise ValueError(
                f"an aberrated probe with modes = {self.modes} and source_angstrom = "
                f"{self.source_angstrom}: several modes are those of a source; give both (3, 6 or "
                '10 modes are complete), or kind = "pixel"'
            )
        if self.kind != "aberrated" and self.source_angstrom is not None:
            raise ValueError(
                f"source_angstrom is of an aberrated probe, and kind is {self.kind!r}, whose modes "
                "are free; leave it out"
            )
        return self


class Specimen(Section):
    """Specimen of a scan, in slices."""

    kind: one_of((*SPECIMENS, "volume"), "kind of specimen", references=True) = key(
        "complex: a free transmission; phase; weak: first Born approximation; potential: in "
        "volts; volume: the potential that all views of a tilt series see; or module:function "
        "beside the job, called with an empty specimen, the grid and specimen.options",
        "complex",
    )
    options: dict[str, Any] = key("keywords of a function named by specimen.kind", {})
    start: one_of(STARTS, "start of a specimen") = key(
        "empty; direct: the phase by a matched filter for the probe's semiangle and aberrations; "
        "columns: atoms of a thick crystal where the dark field is bright, as strong as fits best",
        "empty",
    )
    states: int = key(
        "number of states whose patterns add incoherently, such as two places of one atom; those "
        'of kind = "phase" are unique, and their occupancies are found',
        1,
        ge=1,
    )
    slices: int | None = key(
        "number of slices of a thick specimen; default: as many as its thickness, the wavelength "
        "and the reach of the camera require",
        None,
        20,
        ge=1,
    )
    thickness_angstrom: float | None = key("thickness of all slices together", None, 120.0, gt=0)
    slice_thicknesses_angstrom: Thicknesses | None = key(
        "thickness of every slice along the beam, entrance face first, instead of slices and "
        "thickness_angstrom",
        None,
        [20.0, 40.0, 60.0],
    )
    periodic: bool = key("periodic continuation beyond the edges", False)
    margin_angstrom: float | None = key(
        "margin of the object around the windows; default 4 pixels", None, 10.0, ge=0
    )

    @model_validator(mode="before")
    @classmethod
    def _count_slices(cls, values: Any) -> Any:
        listed = values.get("slice_thicknesses_angstrom") if isinstance(values, dict) else None
        if not isinstance(listed, list):
            return values
        if values.get("thickness_angstrom") is not None or values.get("slices", len(listed)) != len(
            listed
        ):
            raise ValueError(
                f"slice_thicknesses_angstrom lists {len(listed)} slices and their thickness; leave "
                "slices and thickness_angstrom out"
            )
        return values | {"slices": len(listed)}

    @property
    def thicknesses(self) -> list[float] | float | None:
        """Thickness of every slice, or of all together [Å]; None if the job gives none."""
        return self.slice_thicknesses_angstrom or self.thickness_angstrom


class VolumeSpecimen(Section):
    """Potential of a tilt series; its voxels are as wide as the pixels of the patterns' grid."""

    kind: Literal["volume"] = key("the potential that all views see", "volume")
    size_angstrom: Triple | None = key(
        "(z, y, x); default: the particle that the aligned views show and 3 Å around it; of a film "
        "the field that is scanned and illuminated, and as deep as it is wide",
        None,
        [60.0, 60.0, 60.0],
    )
    voxel_z_angstrom: float | None = key(
        "length of the voxels along z; default: their width", None, 0.7, gt=0
    )
    absorptive: bool = key(
        "with absorption; the constraint amplitude_clamp keeps it from amplifying", False
    )
    isolated: bool | None = key(
        "in vacuum, like a particle; false: a film, which continues beyond the scan; default: what "
        "the aligned views show, a film before these",
        None,
        True,
    )
    slices: int = key("number of slices along the beam", 8, ge=1)
    kernel: one_of(INTERPOLATIONS, "kernel") = key(
        f"kernel of the resampling: {', '.join(INTERPOLATIONS)}", "cubic"
    )
    angles: bool = key(
        "small angles of the views about x and z; rotation takes three times as long", True
    )
    taper_angstrom: float = key("distance over which it falls to vacuum at its faces", 2.0, ge=0)


def _kind_of_specimen(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "VolumeSpecimen" if kind == "volume" else "Specimen"


AnySpecimen = Annotated[
    Annotated[Specimen, Tag("Specimen")] | Annotated[VolumeSpecimen, Tag("VolumeSpecimen")],
    Discriminator(_kind_of_specimen),
]


class Propagator(Section):
    """Propagation of the wave between slices."""

    kind: Literal["fresnel", "angular_spectrum"] = key("paraxial, or exact", "fresnel")
    tilt_mrad: Pair | None = key(
        "tilt of the specimen (y, x); refine it with rates.propagator", None, [0.0, 0.0]
    )
    tilted_beam: bool = key(
        "tilts of the file's views tilt the beam (a flat specimen, up to 10°; no volume rotates)",
        False,
    )
    axis_angstrom: float | None = key(
        "depth of the tilt axis below the entrance face, for a tilted beam; default half the "
        "thickness",
        None,
        20.0,
    )
    band_limit: float | None = key(
        "highest frequency as a fraction of Nyquist, 0.667 as a rule", None, 0.667, gt=0
    )


class Detector(Section):
    """Camera."""

    kind: one_of(("camera",), "kind of detector", references=True) = key(
        "camera: as the keys of this section; or module:function beside the job, called with that "
        "detector, the grid and detector.options",
        "camera",
    )
    options: dict[str, Any] = key("keywords of a function named by detector.kind", {})
    blur_pixels: float | None = key("Gaussian point spread, sigma", None, 0.5, ge=0)
    mtf_file: str | None = key(
        "text file: transfer function from zero to Nyquist in its last column",
        None,
        "mtf.txt",
        role="input",
    )
    mtf: entry_of(CAMERA_CURVES) | None = key(
        f"transfer function without a file, by its kind: {', '.join(CAMERA_CURVES)}",
        None,
        {"kind": "stretched", "at_nyquist": 0.3},
    )
    background: float | None = key(
        "counts per pixel from elsewhere, a first value", None, 0.1, ge=0
    )
    gain: float | None = key(
        "factor of the intensity, a first value; separate for every shot with "
        '[vary] "detector.factor" = "shot"',
        None,
        1.0,
        gt=0,
    )
    supersample: int = key("model pixels per detector pixel and direction", 1, ge=1)
    extend: int = key("factor by which the model reaches further than the detector", 1, ge=1)
    descan: one_of(DESCANS, "way to treat descan") = key(
        "bright-field disc off the middle: auto, a shift of the pattern by whole pixels; shared "
        "or shot, by all of it, the same or separate for every shot (refine it with "
        "rates.detector.shift); plane, by all of it and its movement over the scan; none, a tilt "
        "of the beam",
        "auto",
    )
    effective_distance_angstrom: float | None = key(
        "in-line hologram: distance of the equivalent parallel beam, if not in the file",
        None,
        3.6e7,
        gt=0,
    )


class Figures(Section):
    """Figures of a run."""

    further: list[one_of((), "figure", references=True)] = key(
        "figures of yours: module:function beside the job, each called with model, data and "
        "history; returns a Matplotlib figure",
        [],
    )
    every: int = key("interval in epochs at which they are drawn; 0: only at the end", 0, ge=0)
    band_pass_angstrom: Pair | None = key(
        "shortest and longest period that is shown, for noisy data", None, [15.0, 180.0]
    )


class Run(Section):
    """Place, time and resources of a run."""

    out: str | None = key("folder of the run, made new; default: the job's name", None, "run")
    seed: int = key(
        "random seed for held-out shots, batch order and subsampling of shots and quanta", 0, ge=0
    )
    wall_time_minutes: float | None = key(
        "time after which it stops cleanly; resume continues", None, 600.0, gt=0
    )
    devices: int | None = key("number of devices; default all", None, 1, ge=1)
    slabs: int = key(
        "number of slabs along y of a specimen too large for one device; a divisor of the devices",
        1,
        ge=1,
    )
    budget_gib: float | None = key(
        "memory for the gradient on each device; default half of the device's", None, 4.0, gt=0
    )
    checkpoint_every: int = key("epochs between checkpoints", 10, ge=1)
    checkpoints_kept: int = key("number of the last checkpoints that are kept", 2, ge=1)


class Setup(Section):
    """Measurement, model and resources, as every step of a job finds them."""

    data: Data = Data()
    probe: Probe = Probe()
    specimen: AnySpecimen = Specimen()
    scan: Scan = Scan()
    propagator: Propagator = Propagator()
    detector: Detector = Detector()
    start: Start = Start()
    vary: dict[str, Literal["shot", "view"]] = key(
        'fields of the model that differ from shot to shot or view to view: "probe" = "view"', {}
    )
    figures: Figures = Figures()
    run: Run = Run()

    @property
    def is_series(self) -> bool:
        """True if all views see one volume that rotates."""
        return self.specimen.kind == "volume"


AnySetup = TypeVar("AnySetup", bound=Setup)


def with_keys(job: AnySetup, keys: Mapping[str, Any]) -> AnySetup:
    """Job with the values of some keys, by their path "probe.defocus_angstrom"."""
    for path, value in keys.items():
        section, name = path.split(".")
        part = getattr(job, section).model_copy(update={name: value})
        job = job.model_copy(update={section: part})
    return job


def slices_of(job: Setup) -> Specimen:
    """The section of a specimen in slices; ValueError for a volume."""
    if not isinstance(job.specimen, Specimen):
        raise ValueError(
            "specimen.kind = 'volume', and this requires a specimen of one scan in slices; set "
            "another specimen.kind"
        )
    return job.specimen
