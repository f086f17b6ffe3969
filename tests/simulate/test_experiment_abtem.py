"""A whole `Experiment` against abTEM's potential and multislice in the windows of its shots.

What it does beside the multislice is in it: the box, its finer grid, the windows, sub-pixel positions, aberrations to
fifth order, and the crop to the detector.
"""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from abtem_settings import EXACT
from ase import Atoms

from jaxptycho import Grid
from jaxptycho.physics import windows
from jaxptycho.simulate.experiment import Experiment, Sampling
from jaxptycho.simulate.microscope import Microscope

abtem = pytest.importorskip("abtem")

LENS = {"C12": 12.0, "phi12": 0.4, "C21": 300.0, "phi21": 0.9, "C30": 2e4, "C50": 3e6}
FINER = 3  # samples of abTEM's potential for each of ours
TOLERANCE = 2e-3  # relative, of amplitudes


def potential(experiment) -> np.ndarray:
    """abTEM's projected potential [V·Å] of every slice of the box, at the frequencies of its grid."""
    box = experiment.box
    atoms, (ny, nx) = experiment.atoms.copy(), box.grid.shape
    atoms.positions -= box.origin[::-1]
    atoms.cell = [nx * box.grid.pixel[1], ny * box.grid.pixel[0], float(box.faces[-1, 1])]
    atoms.pbc = True
    with abtem.config.set(EXACT), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = abtem.Potential(
            atoms, gpts=(FINER * nx, FINER * ny), slice_thickness=box.thickness, projection="finite"
        ).build()
        values = np.asarray(built.array).transpose(0, 2, 1)
    rows, columns = (np.fft.fftfreq(n, 1 / n).round().astype(int) for n in box.grid.shape)
    return np.fft.ifft2(np.fft.fft2(values)[:, rows][:, :, columns]).real / FINER**2


def patterns(experiment, values) -> np.ndarray:
    """Electrons on the detector, the zero frequency in the corner, by abTEM's multislice in the window of every shot."""
    grid, fine, lens = experiment.grid, experiment.fine, experiment.microscope
    n, found = fine.shape[0], []
    for place in experiment.views[0].positions:
        corner, centre = windows.split_position(
            jnp.asarray(place), jnp.asarray(experiment.box.origin[1:]), fine
        )
        (y, x), middle = np.asarray(corner), np.asarray(centre, float)
        window = np.take(np.take(values, np.arange(y, y + n), 1), np.arange(x, x + n), 2)
        with abtem.config.set(EXACT), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = abtem.PotentialArray(
                window.transpose(0, 2, 1), experiment.box.thickness, sampling=fine.pixel[::-1]
            )
            own = {"energy": 1e3 * grid.voltage_kv, "semiangle_cutoff": 1e3 * lens.semiangle}
            own["aberrations"] = {"C10": -lens.defocus} | LENS
            probe = abtem.Probe(gpts=fine.shape[::-1], sampling=fine.pixel[::-1], **own)
            seen = probe.multislice(array, scan=abtem.CustomScan([middle[::-1]]))
            seen = seen.diffraction_patterns(max_angle="full", fftshift=False).array
        whole = np.asarray(seen).reshape(n, n).T
        rows = np.fft.fftfreq(grid.shape[0], 1 / grid.shape[0]).round().astype(int)
        found.append(experiment.dose * whole[np.ix_(rows, rows)])
    return np.array(found)


def test_an_experiment_agrees_with_abtem():
    places = [
        [0.0, 0.0, 0.0],
        [1.8, 0.4, 3.1],
        [-1.0, 1.7, 6.2],
        [0.5, -2.0, 7.3],
        [1.9, 1.9, 1.4],
        [-2.1, -1.3, 4.6],
    ]
    experiment = Experiment(
        atoms=Atoms("SrTiO2SrTi", positions=places),
        grid=Grid((32, 32), 0.35, 200.0),
        microscope=Microscope(0.02, 40.0, LENS),
        scan=np.array([[0.13, -0.31], [1.02, 0.77]]),
        dose=1000.0,
        sampling=Sampling(0.1, 1.0),
    )
    ours = experiment.expected(0)
    values = potential(experiment)
    theirs, empty = patterns(experiment, values), patterns(experiment, 0 * values)
    scale = np.sqrt(ours.sum() / theirs.sum())

    def error(other, factor):
        return np.linalg.norm(np.sqrt(ours) - factor * np.sqrt(other)) / np.linalg.norm(
            np.sqrt(ours)
        )

    assert scale == pytest.approx(1, abs=2e-3)
    assert error(theirs, scale) < TOLERANCE
    assert error(empty, scale) > 20 * TOLERANCE  # the specimen is not a trifle
