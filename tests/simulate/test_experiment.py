"""Whole experiments: what they average, move and record, and the seeds that decide them."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from ase import Atoms

from jaxptycho import Grid
from jaxptycho.distributed.sharding import mesh, share
from jaxptycho.physics import waves
from jaxptycho.physics.scattering import VOLT_ANGSTROM2, scattering_factor
from jaxptycho.simulate.camera import Camera
from jaxptycho.simulate.experiment import (
    Experiment,
    Sampling,
    ViewErrors,
    expected_patterns,
    simulate,
)
from jaxptycho.simulate.microscope import Microscope
from jaxptycho.simulate.phantoms.arrange import rotation
from jaxptycho.simulate.scan import ScanErrors, raster

GRID = Grid((20, 20), 0.4, 80.0)
LENS = Microscope(0.025, 30.0)


def experiment(**changes) -> Experiment:
    places = np.array([[0.0, 0.0, 0.0], [1.8, 0.4, 1.0], [-1.0, 1.7, 2.0], [0.5, -2.0, 3.0]])
    default = {
        "atoms": Atoms("MoS2W", positions=places),
        "grid": GRID,
        "microscope": LENS,
        "scan": raster((3, 3), 0.9),
        "dose": 100.0,
        "sampling": Sampling(0.2, 2.0),
    }
    return Experiment(**(default | changes))


def error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.fixture(scope="module")
def still():
    return experiment().expected(0)


def test_the_dose_falls_on_the_detector(still):
    assert still.shape == (9, 20, 20)
    np.testing.assert_allclose(still.sum((1, 2)), 100, rtol=0.03)
    assert (still.sum((1, 2)) < 100).all()  # what is scattered beyond the detector is lost


def test_finer_samples_leave_the_disc_centred():
    """Detector pixels are sums of samples, an even number of them too."""
    nothing = experiment(atoms=Atoms("H", positions=[[0, 0, 0]]), microscope=Microscope(0.025))
    for finer in (2, 3):
        found = np.fft.fftshift(replace(nothing, sampling=Sampling(0.3, 2.0, finer)).expected(0)[4])
        y, x = np.mgrid[:20, :20] - 10
        np.testing.assert_allclose(
            [(found * y).sum(), (found * x).sum()], 0, atol=0.02 * found.sum()
        )


def test_shots_are_shared_among_devices(still):
    assert len(jax.devices()) > 1
    np.testing.assert_allclose(
        experiment().expected(0, compute=share(expected_patterns, mesh(4))),
        still,
        rtol=1e-4,
        atol=1e-5,
    )


def test_true_positions_are_used(still):
    """Shifted and sheared probes see what an unmoved scan of those places sees."""
    errors = ScanErrors(jitter=0.1, drift=(0.3, -0.2), shear=0.05)
    moved = experiment(scan_errors=errors)
    there = experiment(scan=moved.views[0].positions)
    assert error(moved.expected(0), there.expected(0)) < 1e-4
    assert error(moved.expected(0), still) > 0.02


def over_places(rms, **changes):
    """The mean pattern of a spot over Gaussian displacements of `rms` [Å], by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    shifts = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2) * rms
    weight = np.outer(weights, weights).ravel()
    return np.einsum(
        "i,iyx->yx", weight / weight.sum(), experiment(scan=shifts, **changes).expected(0)
    )


def test_source_size_is_the_mean_over_places():
    spot, fwhm = np.zeros((1, 2)), 0.6
    mean = over_places(fwhm / 2.35482)
    blurred = experiment(
        scan=spot, microscope=replace(LENS, source_fwhm=fwhm), configurations=64
    ).expected(0)[0]
    assert error(blurred, mean) < 0.012
    assert error(experiment(scan=spot).expected(0)[0], mean) > 0.02


def test_frozen_phonons_of_one_atom_are_the_mean_over_its_places():
    """Thermal diffuse scattering included: a moving atom below a still probe, or the reverse.

    The mean is symmetric; half of the difference of opposite frequencies is the noise of few configurations.
    """
    one = {
        "atoms": Atoms("Mo", positions=[[0, 0, 0]]),
        "microscope": Microscope(0.025),
        "projection": "infinite",
    }
    still, mean = experiment(scan=np.zeros((1, 2)), **one), over_places(0.25, **one)
    shaking = replace(still, vibration=0.25, configurations=64).expected(0)[0]
    shaking = (shaking + np.roll(shaking[::-1, ::-1], 1, (0, 1))) / 2
    assert error(shaking, mean) < 0.35 * error(still.expected(0)[0], mean)


def test_the_mean_potential_is_damped_by_debye_and_waller():
    """F(k) exp(−Bk²/4) with B = 8π²⟨u²⟩."""
    still = experiment()
    k2 = np.asarray(still.box.grid.k2())
    sharp, soft = (
        np.fft.fft2(e.potential(100.0)[0]) for e in (still, replace(still, vibration=0.15))
    )
    np.testing.assert_allclose(
        soft, sharp * np.exp(-2 * np.pi**2 * 0.15**2 * k2), atol=2e-4 * np.abs(sharp).max()
    )


def test_focal_spread_averages_defocus():
    lens = replace(LENS, chromatic=1e7, energy_fwhm=1.0)
    spread = experiment(microscope=lens, configurations=3, scan=np.zeros((1, 2)))
    defoci, _ = lens.incoherent(3, 1, 80.0, np.random.default_rng([0, 0, 3]))
    alone = [
        experiment(
            microscope=replace(LENS, defocus=30.0 + float(d)), scan=np.zeros((1, 2))
        ).expected(0)
        for d in defoci
    ]
    assert error(spread.expected(0), np.mean(alone, 0)) < 1e-4
    assert np.ptp(defoci) > 30


def test_descan_moves_the_pattern_across_the_scan(still):
    step = GRID.dk[0] * GRID.wavelength  # one pixel
    moved = experiment(descan=(2 * step, 0.0)).expected(0)
    assert error(np.roll(moved[0], 1, 0), still[0]) < 0.03
    assert error(np.roll(moved[8], -1, 0), still[8]) < 0.03
    assert error(moved[4], still[4]) < 1e-4


def test_the_cameras_optics_blur_the_pattern(still):
    mtf = np.linspace(1.0, 0.3, 6)
    found = experiment(camera=Camera(mtf=tuple(mtf))).expected(0)
    q = np.hypot(np.fft.fftfreq(20)[:, None], np.fft.fftfreq(20)[None, :])
    wanted = np.fft.ifft2(np.interp(q, np.linspace(0, 0.5, 6), mtf) * np.fft.fft2(still)).real
    np.testing.assert_allclose(found, wanted, atol=1e-4 * still.max())


def test_views_turn_the_atoms_themselves():
    """A view of a tilt series is an untilted view of the turned and shifted atoms."""
    series = experiment(tilts=(0.0, 0.7, -0.4), view_errors=ViewErrors(0.01, 0.3, 5.0))
    assert series.n_views == 3
    view = series.views[1]
    assert abs(view.angles[0] - 0.7) < 0.05
    assert np.abs(view.shift).max() < 0.3
    turned = series.atoms.positions @ rotation(*np.rad2deg(view.angles)).T + [*view.shift[::-1], 0]
    alone = experiment(
        atoms=Atoms("MoS2W", positions=turned), microscope=replace(LENS, defocus=view.defocus)
    )
    top = (
        alone.box.origin[0] - series.box.origin[0]
    )  # views share one entrance face, from which defocus counts
    wanted = replace(alone, microscope=replace(LENS, defocus=view.defocus - top))
    ours, theirs = series.expected(1), wanted.expected(0)
    assert error(np.sqrt(ours), np.sqrt(theirs)) < 0.03  # the slices lie elsewhere
    assert error(np.sqrt(series.expected(0)), np.sqrt(theirs)) > 0.06


def test_the_true_potential_is_that_of_all_atoms():
    one = experiment(vibration={"Mo": 0.1, "S": 0.05, "W": 0.0})
    for projection in ("finite", "infinite"):
        slabs = np.asarray(replace(one, projection=projection).potential(3.0))
        assert len(slabs) == 2
        volume = slabs.sum() * np.prod(one.box.grid.pixel)
        wanted = sum(
            VOLT_ANGSTROM2 * scattering_factor(int(z), np.array(0.0)) for z in one.atoms.numbers
        )
        np.testing.assert_allclose(
            volume, wanted, rtol=1e-3
        )  # the tails before and behind the box too


def test_seeds_decide_everything():
    noisy = experiment(vibration=0.1, configurations=2, camera=Camera(gain=3.0, flatfield=0.02))
    seen = []
    first, again, other = (
        [counts for _, _, counts in simulate(replace(noisy, seed=seed), seen.append)]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first[0].dtype == np.uint16
    assert sum(seen) == 3 * 2 * 9


def test_what_memory_holds_decides_nothing(monkeypatch):
    """A view of 270 shots in parts of 128: the same counts, and never more than a part of the patterns at a time."""
    noisy = experiment(
        vibration=0.1,
        configurations=2,
        microscope=replace(LENS, source_fwhm=0.3),
        scan=raster((15, 18), 0.1),
    )
    whole = np.concatenate([counts for *_, counts in simulate(noisy)])
    parts, expected = [], Experiment.expected

    def noted(self, *args):
        parts.append(expected(self, *args))
        return parts[-1]

    monkeypatch.setattr("jaxptycho.simulate.experiment.HELD_BYTES", 128 * 4 * 400)
    monkeypatch.setattr(Experiment, "expected", noted)
    np.testing.assert_array_equal(np.concatenate([counts for *_, counts in simulate(noisy)]), whole)
    assert [len(part) for part in parts] == [128, 128, 14]


def test_patterns_lie_within_the_band_limit():
    """The corner of the detector, finer or not."""
    for finer in (1, 2):
        fine = Sampling(0.3, 1.0, finer).grid(GRID)
        corner = np.hypot(*(n / 2 * d for n, d in zip(GRID.shape, GRID.dk, strict=True)))
        inside = np.sqrt(np.asarray(fine.k2()))[np.asarray(waves.band_limit(fine)) > 0]
        assert inside.max() > corner * 0.98
        np.testing.assert_allclose(np.multiply(fine.shape, fine.pixel), finer * 8.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"atoms": Atoms()}, "no atoms"),
        ({"atoms": Atoms("XS", positions=[[0, 0, 0], [2, 0, 0]])}, "atomic number 0"),
        ({"atoms": Atoms("S2", positions=[[0, 0, 0], [0.1, 0, 0]])}, "not 0.5 Å apart"),
        ({"atoms": Atoms("S", positions=[[500, 0, 0]])}, "no atom is under the probe"),
        ({"microscope": Microscope(0.025, 400.0)}, "its window only 8 Å"),
        ({"microscope": Microscope(0.025, 30.0, {"C30": 3e6})}, "its window only 8 Å"),
        ({"tilts": (0.0, 0.1), "view_errors": ViewErrors(defocus=400.0)}, "its window only 8 Å"),
        ({"microscope": replace(LENS, source_fwhm=0.5)}, "averaged over 1 configuration"),
        (
            {"microscope": replace(LENS, chromatic=1e7, energy_fwhm=1.0)},
            "averaged over 1 configuration",
        ),
        ({"view_errors": ViewErrors(shift=1.0)}, "came without tilts"),
        ({"projection": "half"}, "unknown projection 'half'"),
        ({"vibration": {"Mo": 0.1}}, "for S, W"),
        ({"grid": Grid((20, 20), 0.4, wavelength=1.0)}, "only electrons"),
    ],
)
def test_bad_experiments_are_refused_in_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        experiment(**changes).expected(0)


def test_bad_sampling_is_refused():
    with pytest.raises(ValueError, match="slices of 0 Å"):
        Sampling(0.1, 0.0)
