"""Physics that a job can say: unequal slices, rectangular pixels, a source of finite size, a defocus
for every shot. Counts are made with numpy alone; at the right model χ² is 1."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxptycho as jp
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.physics.aberrations import aperture

SIDE = 6  # shots
N = 32  # pixels
STEP = 4  # pixels
SEMIANGLE = 0.025  # rad
FWHM = 2 * np.sqrt(2 * np.log(2))  # standard deviations
SPECIMEN = '''
import equinox as eqx
import jax.numpy as jnp


def gratings(guess, grid):
    """The specimen of the simulation, slice by slice."""
    count, rows, columns = guess.phase.shape
    y = guess.origin[0] + grid.pixel[0] * jnp.arange(rows)[:, None]
    x = guess.origin[1] + grid.pixel[1] * jnp.arange(columns)
    phase = jnp.stack([0.5 * jnp.cos((2.1 + n) * y) * jnp.cos((2.9 - n) * x) for n in range(count)])
    return eqx.tree_at(lambda s: s.phase, guess, phase)
'''


def simulate(pixel=(0.3, 0.3), thicknesses=(0.0,), defocus=60.0, source=0.0, dose=4e3):
    """Counts [shot, y, x] of a raster over gratings; `source` is a standard deviation [Å]."""
    grid = jp.Grid((N, N), pixel, 80.0)
    wavelength = grid.wavelength
    ky, kx = (np.fft.fftfreq(N, p) for p in pixel)
    ky = ky[:, None]
    k2 = ky**2 + kx**2
    inside = np.asarray(aperture(grid, SEMIANGLE, jnp.zeros(2)))  # its edge is smooth
    y, x = ((np.arange(N) - N // 2) * p for p in pixel)
    nodes, weights = np.polynomial.hermite_e.hermegauss(7) if source else ([0.0], np.ones(1))
    places = np.indices((SIDE, SIDE)).reshape(2, -1).T * STEP * np.array(pixel)
    defoci = np.broadcast_to(defocus, SIDE**2)
    patterns = []
    for (row, column), own in zip(places, defoci, strict=True):
        total = np.zeros((N, N))
        lens = inside * np.exp(1j * np.pi * wavelength * own * k2)
        for a, v in zip(nodes, weights / weights.sum(), strict=True):
            for b, w in zip(nodes, weights / weights.sum(), strict=True):
                wave = lens * np.exp(-2j * np.pi * source * (a * ky + b * kx))
                for n, thickness in enumerate(thicknesses):
                    shown = np.fft.fftshift(np.fft.ifft2(wave))
                    grating = np.cos((2.1 + n) * (y + row))[:, None] * np.cos(
                        (2.9 - n) * (x + column)
                    )
                    wave = np.fft.fft2(np.fft.ifftshift(shown * np.exp(0.5j * grating)))
                    if n + 1 < len(thicknesses):
                        wave = wave * np.exp(-1j * np.pi * wavelength * thickness * k2)
                total += v * w * np.abs(wave) ** 2
        patterns.append(np.fft.fftshift(dose * total / total.sum()))
    return np.random.default_rng(4).poisson(patterns).astype(np.uint16)


@pytest.fixture(scope="module")
def specimen(tmp_path_factory):
    """Name of the function that makes the specimen."""
    file = tmp_path_factory.mktemp("specimen") / "gratings_of_a_test.py"
    file.write_text(SPECIMEN)
    return f"{file}:gratings"


@pytest.fixture
def outcome(specimen, tmp_path):
    """`outcome(counts, pixel, rates, **sections)` of a run with the true specimen."""

    def run(counts, pixel, rates, name="run", epochs=2, **sections):
        np.save(tmp_path / "scan.npy", counts)
        data = {"file": str(tmp_path / "scan.npy"), "voltage_kv": 80.0, "hold_out": 0.0}
        data |= {"pixel_angstrom": pixel, "bad_data": "keep"}
        step = [STEP * p for p in pixel] if isinstance(pixel, list) else STEP * pixel
        probe = {"kind": "aberrated", "semiangle_mrad": 1e3 * SEMIANGLE, "defocus_angstrom": 60.0}
        refine = {"kind": "refine", "epochs": epochs, "batch": SIDE**2, "rates": rates}
        values = {
            "data": data,
            "scan": {"shape": [SIDE, SIDE], "step_angstrom": step},
            "probe": probe | sections.pop("probe", {}),
            "specimen": {"kind": specimen} | sections.pop("specimen", {}),
            "detector": {"descan": "none"},
            "figures": {"every": 0},
            "run": {"devices": 1},
            "step": [refine | {"loss": "poisson"}],
        }
        job = make_job(values | sections)
        return job, start(job, tmp_path / name)

    return run


SLOW_PROBE = {"probe": 1e-4}


@pytest.mark.slow
def test_slices_of_unequal_thickness(outcome):
    depths = [12.0, 48.0, 5.0]
    counts = simulate(thicknesses=depths)
    listed = {"slice_thicknesses_angstrom": depths}
    _, right = outcome(counts, 0.3, SLOW_PROBE, specimen=listed)
    np.testing.assert_allclose(right.model.specimen.thickness, depths)
    assert right.fit["chi2"] == pytest.approx(1, abs=0.05)
    equal = {"slices": 3, "thickness_angstrom": sum(depths)}
    _, wrong = outcome(counts, 0.3, SLOW_PROBE, "equal", specimen=equal)
    assert wrong.fit["chi2"] > 1.2


@pytest.mark.slow
def test_pixels_that_are_not_square(outcome):
    pixel = [0.3, 0.375]
    job, right = outcome(simulate(pixel), pixel, SLOW_PROBE)
    assert right.fit["chi2"] == pytest.approx(1, abs=0.05)
    steps = job.data.model_copy(
        update={
            "pixel_angstrom": None,
            "dk_inverse_angstrom": [1 / (N * p) for p in pixel],
        }
    )
    grid = read_data(job.model_copy(update={"data": steps})).grid
    np.testing.assert_allclose(grid.pixel, pixel)


@pytest.mark.slow
def test_the_size_of_a_source_is_found(outcome):
    counts = simulate(source=0.6 / FWHM, dose=2e4)
    rates = {"probe.source": {"rate": 0.05, "schedule": "cosine"}}
    probe = {"modes": 6, "source_angstrom": 0.35}
    _, found = outcome(counts, 0.3, rates, epochs=40, probe=probe)
    assert float(found.model.probe.source) * FWHM == pytest.approx(0.6, abs=0.02)
    assert found.fit["chi2"] == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_the_defocus_of_every_shot_is_found(outcome):
    defoci = 60 + np.random.default_rng(8).normal(0, 15, SIDE**2)
    rates = {"probe.aberrations.C10": {"rate": 0.3, "schedule": "cosine"}}
    vary = {"probe.aberrations.C10": "shot"}
    counts = simulate(defocus=defoci, dose=2e4)
    _, found = outcome(counts, 0.3, rates, epochs=60, vary=vary)
    error = -np.asarray(found.model.probe.aberrations["C10"].values) - defoci
    assert np.sqrt(np.mean(error**2)) < 3
    assert found.fit["chi2"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"specimen": {"slice_thicknesses_angstrom": [1.0, 2.0], "slices": 3}}, "leave slices"),
        (
            {"specimen": {"slice_thicknesses_angstrom": [1.0, 2.0], "thickness_angstrom": 3.0}},
            "lists 2 slices and their thickness",
        ),
        ({"specimen": {"slice_thicknesses_angstrom": [1.0, -2.0]}}, "greater than 0"),
        ({"probe": {"kind": "aberrated", "modes": 3}}, "several modes are those of a source"),
        ({"probe": {"kind": "pixel", "source_angstrom": 0.5}}, "of an aberrated probe"),
        ({"data": {"file": "a.h5", "pixel_angstrom": [0.3]}}, "one number above 0 is expected"),
        ({"data": {"file": "a.h5", "dk_inverse_angstrom": [0.3, -1]}}, "above 0 is expected, or"),
        ({"data": {"file": "a.h5", "pixel_angstrom": [3e-11, 3e-11]}}, "metres or nm"),
    ],
)
def test_contradictions_are_refused(section, words):
    with pytest.raises(ValueError, match=words):
        make_job({"data": {"file": "a.h5"}} | section)
