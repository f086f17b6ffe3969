"""Job of an acquisition: microscope, tilts, targets and limits, as a checked TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ..acquisition.geometry import STEM, TEM
from ..acquisition.plan import Plan, dose_symmetric
from ..acquisition.priors import GeometryPrior
from ..acquisition.schedule import Rules
from ..acquisition.units import ANGSTROM_PER_NM, ANGSTROM_PER_UM
from .mistakes import mistake_sentence
from .schema import Section, key


class MicroscopeSection(Section):
    """Microscope behind SerialEM, or what `--simulate` has in its place."""

    address: str = key("address of SerialEM", "127.0.0.1")
    port: int = key("port of SerialEM", 48888, ge=1, le=65535)
    underfocus_um: float = key("nominal underfocus, from which changes are counted", 0.0)
    mode: Literal["stem", "tem"] = key("side of the lens: above the specimen, or below", "stem")
    dose_per_a2: float = key("dose of a scan in electrons per Å², for the mdoc", 0.0, ge=0)
    world: Literal["gentle", "harsh"] = key("errors of the simulated microscope", "gentle")
    seed: int = key("of the simulated microscope", 0, ge=0)


class TiltsSection(Section):
    """Dose-symmetric tilts."""

    start_deg: float = key("first tilt", 0.0)
    lowest_deg: float = key("end of the negative branch", -60.0)
    highest_deg: float = key("end of the positive branch", 60.0)
    step_deg: float = key("from tilt to tilt", 3.0, gt=0)
    group: int = key("tilts of a branch before the other one's turn", 2, ge=1)


class TargetSection(Section):
    """Target; the first is tracked and therefore near the tilt axis."""

    name: str = key("of its files", pattern=r"^[\w-]+$")
    x_um: float = key("place along the tilt axis")
    y_um: float = key("place across it")


class RulesSection(Section):
    """Limits of the acquisition."""

    shift_limit_um: float = key("greatest image shift", 15.0, gt=0)
    dark: float = key("fraction of a target's first mean count that ends its branch", 0.2, ge=0)
    drift_nm_per_s: float = key("drift at which the stage is quiet after a tilt", 0.5, gt=0)
    settle_s: float = key("longest wait for it", 60.0, ge=0)
    patience_min: float = key("wait for a microscope that is not ready", 60.0, ge=0)
    minutes: float | None = key(
        "for the series; when late, the last targets are given up", None, 90
    )
    partners: int = key("earlier scans that each is measured against", 3, ge=1)


class PriorSection(Section):
    """Standard deviations of what the stage and the specimen do: of many earlier series, best."""

    jitter_nm: float = key("of the stage from tilt to tilt, at random", 150.0, gt=0)
    runout_nm: float = key("of the stage over many tilts, smooth", 360.0, ge=0)
    backlash_nm: float = key("between the branches", 200.0, ge=0)
    axis_offset_nm: float = key("of the tilt axis", 300.0, ge=0)
    height_nm: float = key("of the specimen from the eucentric height", 1500.0, ge=0)
    roughness_nm: float = key("of single targets from a plane", 200.0, ge=0)
    drift_nm_per_min: float = key("right after a tilt", 10.0, ge=0)
    reading_deg: float = key("of the angles that are read back", 0.02, ge=0)
    matrix: float = key("of the image-shift matrix, relative", 0.0, ge=0)


class AcquireJob(Section):
    """Acquisition of a tilt series."""

    microscope: MicroscopeSection = MicroscopeSection()
    prior: PriorSection = PriorSection()
    tilts: TiltsSection = TiltsSection()
    rules: RulesSection = RulesSection()
    target: Annotated[list[TargetSection], Field(min_length=1)] = key("targets, tracked one first")

    @model_validator(mode="after")
    def _possible(self):
        self.angles_deg()
        names = [target.name for target in self.target]
        if len(set(names)) < len(names):
            raise ValueError(
                f"targets are called {', '.join(names)}; a name of its own is required for each"
            )
        limit = self.rules.shift_limit_um
        far = [t for t in self.target if np.hypot(t.x_um, t.y_um) > limit]
        if far:
            size = np.hypot(far[0].x_um, far[0].y_um)
            raise ValueError(
                f"{len(far)} of {len(names)} targets are beyond the image-shift limit of "
                f"{limit:g} µm (first: {far[0].name} at {size:.2f} µm); move the stage, leave them "
                "out, or set rules.shift_limit_um"
            )
        return self

    def angles_deg(self) -> np.ndarray:
        """Tilts in their order [degrees]."""
        tilts = self.tilts
        return dose_symmetric(
            tilts.start_deg, tilts.lowest_deg, tilts.highest_deg, tilts.step_deg, tilts.group
        )

    def plan(self) -> Plan:
        """Plan of the series, in Å and rad."""
        places = np.array([[target.x_um, target.y_um] for target in self.target])
        sign = STEM if self.microscope.mode == "stem" else TEM
        return Plan(np.deg2rad(self.angles_deg()), places * ANGSTROM_PER_UM, focus_sign=sign)

    def geometry_prior(self) -> GeometryPrior:
        """Prior of the geometry, in Å and rad."""
        prior = self.prior
        nm = ANGSTROM_PER_NM
        return GeometryPrior(
            height=prior.height_nm * nm,
            roughness=prior.roughness_nm * nm,
            axis_offset=prior.axis_offset_nm * nm,
            runout=prior.runout_nm * nm,
            backlash=prior.backlash_nm * nm,
            jitter=prior.jitter_nm * nm,
            drift=prior.drift_nm_per_min * nm / 60,
            angle_error=float(np.deg2rad(prior.reading_deg)),
            matrix=prior.matrix,
        )

    def limits(self) -> Rules:
        """Rules of the series, in Å and s."""
        rules = self.rules
        return Rules(
            shift_limit=rules.shift_limit_um * ANGSTROM_PER_UM,
            dark=rules.dark,
            drift=rules.drift_nm_per_s * ANGSTROM_PER_NM,
            settle=rules.settle_s,
            patience=60 * rules.patience_min,
            minutes=np.inf if rules.minutes is None else rules.minutes,
            partners=rules.partners,
        )


def read_acquire_job(path: Path) -> AcquireJob:
    """Checked job of a TOML file. ValueError with a sentence for every mistake."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not valid TOML: {error}; a job of an acquisition has the sections "
            "[microscope], [tilts], [rules] and [[target]]"
        ) from None
    try:
        return AcquireJob.model_validate(values)
    except ValidationError as error:
        told = [f"{path}: {mistake_sentence(one, AcquireJob)}" for one in error.errors()]
        raise ValueError("\n".join(told)) from None
