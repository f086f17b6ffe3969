"""`jaxptycho compare A B` of volumes and of atoms: the gauge goes, what is left is told shell by shell."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from models import pixel_probe, rng
from typer.testing import CliRunner

from jaxptycho import (
    Atoms,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PerView,
    PixelProbe,
    SliceStack,
    Volume,
    write,
)
from jaxptycho.analysis.resolution import fourier_correlation
from jaxptycho.analysis.shells import taper
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.cli.main import app
from jaxptycho.physics.mean_potential import atoms_potential
from jaxptycho.reports.compare import compare_models, compare_results

VOXEL, SHAPE, GRID = 0.4, (28, 30, 32), Grid((16, 16), 0.4, 80.0)
PLACES = rng(4).uniform(-3, 3, (14, 3))
NUMBERS = np.array([78] * 4 + [8] * 10)
VIBRATION = 4.0  # Å², so that splines between voxels are good
TILTS = PerView(jnp.asarray([-0.6, 0.0, 0.6]))


def potential(places=PLACES, shape=SHAPE):
    return jnp.asarray(
        atoms_potential(NUMBERS, places, np.full(len(NUMBERS), VIBRATION), shape, VOXEL)
    )


def model(specimen) -> Model:
    places = np.stack(
        np.meshgrid(np.arange(-4.0, 4.1), np.arange(-4.0, 4.1), indexing="ij"), -1
    ).reshape(-1, 2)
    return Model(pixel_probe(1, GRID), specimen, FreeScan(PerShot(jnp.asarray(places))), GRID)


def atoms(tilt=0.0, **kwargs) -> Atoms:
    corner = tuple(-(n // 2) * VOXEL for n in SHAPE[1:])
    height = SHAPE[0] * VOXEL / 2
    places = jnp.asarray(PLACES + np.array([height, 0, 0]))
    return Atoms(NUMBERS, places, SHAPE[1:], height / 2, 4, corner, VIBRATION, tilt=tilt, **kwargs)


def told(folder, first, second, out=None) -> dict[str, str]:
    """What the command says of two specimens."""
    for name, specimen in (("a", first), ("b", second)):
        write(folder / f"{name}.h5", model(specimen), overwrite=True)
    return compare_results(folder / "a.h5", folder / "b.h5", out)


def numbers(words: str) -> list[float]:
    """The numbers among some words."""
    return [float(found) for found in re.findall(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?", words)]


def test_a_turned_volume_agrees_to_the_last_shell(tmp_path):
    """A place r is seen at R r + t, at twice the contrast and in a deeper box."""
    turn, by = rotation_matrices(np.deg2rad([4.0, -3.0, 2.0])), np.array([0.5, -0.3, 0.7])
    whole = Volume(potential(), VOXEL, TILTS, taper=0.4)
    turned = Volume(2 * potential(PLACES @ turn.T + by, (32, 30, 32)), VOXEL, TILTS, taper=0.4)
    rows = told(tmp_path, whole, turned, tmp_path / "told")
    assert numbers(rows["correlation of the potentials"])[0] > 0.99
    np.testing.assert_allclose(numbers(rows["shift removed"])[:3], by, atol=0.02)
    np.testing.assert_allclose(numbers(rows["rotation removed"])[:3], [4, -3, 2], atol=0.1)
    assert numbers(rows["scale and offset removed"])[0] == pytest.approx(2, rel=0.02)
    for level in ("half-bit resolution", "0.143 resolution", "0.5 resolution"):
        assert numbers(rows[level])[0] < 2.1 * VOXEL
    assert {path.name for path in (tmp_path / "told").iterdir()} >= {
        "fsc.png",
        "fsc.csv",
        "fsc_directions.png",
    }
    assert {path.name for path in (tmp_path / "told").iterdir()} >= {
        "spectrum_a.png",
        "fsc_control.png",
    }


def test_volumes_agree_as_far_as_one_of_them_goes(tmp_path):
    """Beyond 1/(1.6 Å) the second is other noise: of the shell correlation in 1/Å of voxels, not of pixels in x and y."""
    k = np.meshgrid(*(np.fft.fftfreq(n, VOXEL) for n in SHAPE), indexing="ij", sparse=True)
    beyond = sum(step**2 for step in k) > 1 / 1.6**2
    noise = np.fft.fftn(rng(1).normal(size=SHAPE) * np.asarray(potential()).std() * 3)
    other = np.fft.ifftn(np.where(beyond, noise, np.fft.fftn(potential()))).real
    rows = told(
        tmp_path, *(Volume(v, VOXEL, TILTS, taper=0.0) for v in (potential(), jnp.asarray(other)))
    )
    assert numbers(rows["0.5 resolution"])[0] == pytest.approx(1.6, rel=0.06)


def test_atoms_compare_with_volumes_and_with_slices(tmp_path):
    rows = told(tmp_path, Volume(potential(), VOXEL, TILTS, taper=0.4), atoms(TILTS))
    assert numbers(rows["correlation of the potentials"])[0] > 0.999
    assert numbers(rows["scale and offset removed"])[0] == pytest.approx(1, rel=1e-3)
    rows = told(tmp_path, atoms(TILTS), atoms(TILTS))
    assert numbers(rows["correlation of the potentials"])[0] > 0.9999

    one = atoms()
    corner = jnp.asarray([-(n // 2) * VOXEL for n in SHAPE[1:]])
    phase = GRID.sigma * np.asarray(potential()).sum(0) * VOXEL
    rows = told(tmp_path, one, SliceStack(jnp.asarray(phase)[None], None, 1.0, corner))
    assert numbers(rows["correlation of the phases"])[0] > 0.999
    assert numbers(rows["slope of the phases"])[0] == pytest.approx(1, rel=2e-3)
    np.testing.assert_allclose(numbers(rows["shift"])[:2], 0, atol=0.01)
    np.testing.assert_allclose(
        one.in_slices(GRID).slices(GRID).transmission, one.slices(GRID).transmission, atol=1e-5
    )


def test_occupancies_count_in_voxels():
    """The sum of a volume is Σ occupancy · f(0)."""
    half = atoms_potential(
        NUMBERS, PLACES, np.full(14, VIBRATION), SHAPE, VOXEL, occupancy=np.full(14, 0.5)
    )
    np.testing.assert_allclose(half, np.asarray(potential()) / 2, atol=1e-6)


def test_a_volume_and_slices_get_one_sentence(tmp_path):
    slices = SliceStack(jnp.zeros((1, 30, 32)), None, 1.0, jnp.zeros(2))
    for name, specimen in (("volume", Volume(potential(), VOXEL, TILTS)), ("slices", slices)):
        write(tmp_path / f"{name}.h5", model(specimen))
    for pair in (("volume", "slices"), ("slices", "volume")):
        done = CliRunner().invoke(
            app, ["compare", *(str(tmp_path / f"{name}.h5") for name in pair)]
        )
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert line.endswith("compare two results of tilt series, or two of one view")


def gaussians(places, n=32, voxel=0.5, width=0.6):
    axis = (np.arange(n) - n // 2) * voxel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return sum(
        np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / (2 * width**2)) for a, b, c in places
    )


def test_volumes_are_compared_on_top_of_one_another(tmp_path):
    """The same Gaussians in another pose and a smaller box, each with noise of its own: FSC = S/(S + N) by shells."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-4, 4, (25, 3))
    turned = places @ rotation_matrices(np.deg2rad([2.0, -1.0, 1.5])).T + [0.6, -0.4, 0.5]
    noise = [0.02 * rng.normal(size=(32,) * 3) for _ in range(2)]
    tilts = PerView(jnp.array([-0.3, 0.3]))
    volumes = [gaussians(p) + n for p, n in zip((places, turned), noise, strict=True)]
    cut = volumes[0], volumes[1][1:, :-1, 1:-1]
    models = [
        Model(
            PixelProbe(jnp.ones((1, 8, 8), complex)),
            Volume(jnp.asarray(v), 0.5, tilts, taper=0.0),
            FreeScan(PerShot(jnp.zeros((1, 2)))),
            Grid((8, 8), 0.5, 200.0),
        )
        for v in cut
    ]
    rows = compare_models(*models, tmp_path)
    figures = {
        "fsc.png",
        "fsc.csv",
        "fsc_directions.png",
        "fsc_control.png",
        "spectrum_a.png",
        "spectrum_b.png",
    }
    assert figures == {path.name for path in tmp_path.iterdir()}
    signal = gaussians(places) - gaussians(places).mean()
    shell = fourier_correlation(signal, signal, 0.5, taper(signal.shape)).frequency
    power = [fourier_power(v, shell) for v in (signal, noise[0])]
    expected = shell[np.flatnonzero(power[0] / (power[0] + power[1]) < 0.143)[0]]
    found = float(rows["0.143 resolution"].split()[0])
    assert 1 / found == pytest.approx(expected, rel=0.1)
    assert float(rows["correlation of the potentials"]) > 0.9


def fourier_power(values, frequency):
    """Mean power in shells of these middles, under the window of the report."""
    spectrum = np.abs(np.fft.fftn((values - values.mean()) * taper(values.shape))) ** 2
    k = np.sqrt(
        sum(
            f**2
            for f in np.meshgrid(*[np.fft.fftfreq(n, 0.5) for n in values.shape], indexing="ij")
        )
    )
    index = np.round(k / frequency[1]).astype(int)
    return np.array([spectrum[index == n].mean() for n in range(len(frequency))])
