"""What a job of a tilt series may say: every section and key, its unit, its default and its meaning, once."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ..kernels.resampling import INTERPOLATIONS
from .schema import LOSSES, OPTIMISERS, Camera, Data, Drawing, Illumination, Rate, Run, Section, Stage, key, one_of

Triple = Annotated[list[float], Field(min_length=3, max_length=3)]
Bins = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class SeriesProbe(Illumination):
    """The illumination, a defocus being that at the height of the tilt axis."""

    kind: Literal["pixel", "aberrated"] = key(
        "pixel: free in every pixel; aberrated: aperture and aberrations", "pixel"
    )
    per_view: bool = key("an own probe (aperture, defocus, dose) for every view", False)


class Volume(Section):
    """The potential that all views see; its voxels are as wide as the pixels of the patterns' grid."""

    size_angstrom: Triple | None = key(
        "(z, y, x); default: the field that is scanned and lit, and as deep as it is wide", None, [60.0, 60.0, 60.0]
    )
    voxel_z_angstrom: float | None = key("length of the voxels along z; default: their width", None, 0.7, gt=0)
    absorptive: bool = key("it absorbs, too; the constraint amplitude_clamp keeps it from amplifying", False)
    isolated: bool = key("vacuum is around it, as around a particle; false: it holds the scan at every tilt", False)
    slices: int = key("slices along the beam", 8, ge=1)
    kernel: one_of(INTERPOLATIONS, "kernel") = key(f"of the resampling: {', '.join(INTERPOLATIONS)}", "cubic")
    angles: bool = key("views have small angles about x and z, too; turning takes three times as long", True)
    taper_angstrom: float = key("over which it falls to vacuum at its faces", 2.0, ge=0)


class Views(Section):
    """First step: every view by itself, for its projection and its probe."""

    slices: int = key("of its phase, whose sum is the projection; more than one where the specimen is thick", 1, ge=1)
    thickness_angstrom: float | None = key("of all these slices; default: the depth of the volume", None, 60.0, gt=0)
    epochs: int = key("of every view; 0 leaves it and the next two steps out", 30, ge=0)
    batch: int = key("shots per step", 64, ge=1)
    loss: one_of(LOSSES, "loss") = key(f"{', '.join(LOSSES)}", "amplitude")
    specimen_rate: float = key("of even_adam on the phase of all slices together, in natural units", 2e-2, ge=0)
    probe_rate: float = key("of adam on the probe", 1e-3, ge=0)


class Alignment(Section):
    """Second step: how the views stand, from their projections."""

    turns: int = key("of volume and poses, for each length of voxels; 0 trusts the nominal poses", 5, ge=0)
    iterations: int = key("of the volume in every turn", 8, ge=1)
    bins: Bins = key("voxels so many times as long, one after the other", [4, 2])
    coarse: bool = key("find shifts by correlation first", True)
    common_field: bool | None = key(
        "compare views only where neighbours, then all, see the same; default: where volume.isolated = false",
        None,
        True,
    )
    angles: bool = key("find three angles of every view, too, which patterns show better than projections", False)
    angle_prior_deg: float = key("how far an angle strays from the nominal one", 0.3, gt=0)
    drop: bool = key(
        "leave views that do not fit the others out of all that follows, too; the alignment never uses them", True
    )


class Linear(Section):
    """Third step: a first volume from the aligned projections."""

    method: Literal["fista", "sirt", "cgls"] = key("fista (nowhere negative), sirt or cgls", "fista")
    iterations: int = key("of the method; 0: an empty volume, as for stages that begin anew", 0, ge=0)
    total_variation: float = key("its weight, for fista", 0.0, ge=0)


class SeriesStage(Stage):
    """One part of the end-to-end refinement; each stage starts from the result of the last."""

    optimiser: one_of(OPTIMISERS, "optimiser") = key(Stage.model_fields["optimiser"].description or "", "even_adam")
    poses: Literal["nominal", "shifts", "all"] = key(
        "which a Newton step refines after every epoch: shifts while they are poor, then all", "all"
    )
    pose_shots: int = key("patterns of every view that its Newton step looks at", 48, ge=1)
    anew: bool = key("the volume begins anew after every epoch, lest it keep the errors of the poses", False)
    elements: Annotated[list[str], Field(min_length=1)] | None = key(
        "from here on atoms of these: traced in the volume, or named anew by their occupancies and dropped if faint",
        None,
        ["O", "Al", "Pt"],
    )
    threshold_volt: float | None = key(
        "peaks of the volume, slightly blurred, count above it; default half of the lightest element's",
        None,
        30.0,
        gt=0,
    )


def _stages() -> list[SeriesStage]:
    """As they suited simulated particles of light and heavy atoms; see benchmarks/bench_tomography.py."""
    probe = Rate(rate=1e-3, optimiser="adam")
    nowhere_negative = {"kind": "positivity", "each_step": True}
    common = {"batch": 105, "constraint": [nowhere_negative]}
    rates = {"specimen": Rate(rate=3e-2), "probe": probe}
    falling = {"specimen": Rate(rate=3e-2, schedule="cosine"), "probe": probe}
    return [
        SeriesStage(name="coarse", epochs=4, poses="shifts", anew=True, rates=rates, **common),
        SeriesStage(name="fine", epochs=5, poses="all", rates=falling, **common),
    ]


class TomogramJob(Section):
    """From the patterns of a tilt series to a potential in space."""

    FILES: ClassVar = {"data": "file", "detector": "mtf_file"}

    data: Data
    probe: SeriesProbe = SeriesProbe()
    volume: Volume = Volume()
    detector: Camera = Camera()
    views: Views = Views()
    alignment: Alignment = Alignment()
    linear: Linear = Linear()
    stage: list[SeriesStage] = Field(default_factory=_stages, min_length=1)
    figures: Drawing = Drawing()
    run: Run = Run()

    @model_validator(mode="after")
    def _atoms_after_a_volume(self):
        if self.stage[0].elements:
            raise ValueError(
                "stage.0 has elements and no volume yet in which to trace them; begin with a stage without"
            )
        first = next((number for number, stage in enumerate(self.stage) if stage.elements), len(self.stage))
        for number, stage in enumerate(self.stage[first:], first):
            if stage.anew:
                raise ValueError(
                    f"stage.{number} begins a volume anew that is atoms since stage.{first}; leave anew out"
                )
        return self
