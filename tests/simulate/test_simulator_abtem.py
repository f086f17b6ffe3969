"""Potential, probe and patterns of thick and of twisted crystals against abTEM, which shares no code.

abTEM samples a singular potential on its pixels, so it is asked for finer pixels, of which the frequencies of our grid
are kept; it drops what leaves the band limit also behind the last slice, so patterns are compared within it.
"""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from abtem_settings import EXACT
from ase import Atoms

from jaxptycho import AberratedProbe, AngularSpectrum, BandLimited, Grid
from jaxptycho.physics import waves
from jaxptycho.simulate.phantoms.crystals import twisted_bilayer
from jaxptycho.simulate.stacks import Box, content, projected, transmissions

abtem = pytest.importorskip("abtem")

LENS = {"C10": -60.0, "C12": 10.0, "phi12": 0.4, "C30": 1e5}
TOLERANCE = 2e-3
CELL = 3.905


def error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def fine(atoms, grid, finer, slices, projection="finite", first=0, last=None):
    """abTEM's projected potentials [V·Å], [slice, y, x], at the frequencies of `grid`."""
    thickness = atoms.cell[2, 2] / slices
    shape = tuple(finer * n for n in grid.shape[::-1])
    with abtem.config.set(EXACT), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        potential = abtem.Potential(
            atoms, gpts=shape, slice_thickness=thickness, projection=projection
        )
        values = np.asarray(potential.build(first, last or slices).array).transpose(0, 2, 1)
    spectra = np.fft.fft2(values)
    rows, columns = (np.fft.fftfreq(n, 1 / n).round().astype(int) for n in grid.shape)
    kept = spectra[:, rows][:, :, columns]
    return np.fft.ifft2(kept).real / finer**2


def limited(values, grid):
    return np.fft.ifft2(np.fft.fft2(values) * np.asarray(waves.band_limit(grid))).real


def abtem_patterns(potential, thickness, grid, semiangle, places):
    """Patterns within the band limit of abTEM's multislice of abTEM's potential, and its probes."""
    with abtem.config.set(EXACT), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = abtem.PotentialArray(
            potential.transpose(0, 2, 1), thickness, sampling=grid.pixel[::-1]
        )
        lens = {
            "energy": 1e3 * grid.voltage_kv,
            "semiangle_cutoff": 1e3 * semiangle,
            "aberrations": LENS,
        }
        probe = abtem.Probe(gpts=grid.shape[::-1], sampling=grid.pixel[::-1], **lens)
        scan = abtem.CustomScan(np.asarray(places)[:, ::-1])
        exits = probe.multislice(array, scan=scan)
        patterns = exits.diffraction_patterns(max_angle="full", fftshift=False).array
        waves_ = probe.build(scan).array
    return np.asarray(patterns).transpose(0, 2, 1), np.asarray(waves_).transpose(0, 2, 1)


def our_patterns(stack, thickness, grid, semiangle, places):
    """Ours, and the probes; the window is the whole periodic box."""
    spectrum = AberratedProbe(semiangle, LENS).spectrum(grid)
    kernel = BandLimited(AngularSpectrum()).kernel(grid, thickness)
    probes = [waves.place_probe(spectrum, jnp.asarray(place), grid) for place in places]
    patterns = [waves.far_field(waves.multislice(probe, stack, kernel)) for probe in probes]
    return np.asarray(patterns), np.asarray(probes)[:, 0]


def assert_patterns_agree(found, reference, thickness, grid, semiangle, places, count):
    """`found` and `reference` are our content and abTEM's potential of one period of `count`."""
    stack = jnp.tile(transmissions(found, grid), (count, 1, 1))
    ours, our_probes = our_patterns(stack, thickness, grid, semiangle, places)
    theirs, their_probes = abtem_patterns(
        np.tile(reference, (count, 1, 1)), thickness, grid, semiangle, places
    )
    scale = np.linalg.norm(our_probes) / np.linalg.norm(their_probes)
    assert error(our_probes, scale * their_probes) < 1e-4
    band = np.asarray(waves.band_limit(grid))
    assert error(np.sqrt(ours) * band, np.sqrt(theirs) * band) < TOLERANCE
    vacuum, _ = our_patterns(jnp.ones_like(stack[:1]), thickness, grid, semiangle, places)
    assert (
        error(np.sqrt(vacuum) * band, np.sqrt(theirs) * band) > 0.1
    )  # the specimen is not a trifle


@pytest.mark.parametrize(
    ("projection", "slices"),
    [pytest.param("infinite", 2, marks=pytest.mark.slow), ("finite", 4)],
)
def test_thick_strontium_titanate(projection, slices):
    """20 nm of it, slices of 1 or 2 Å; half a fine pixel off, where abTEM's sampling of the nuclei is best."""
    n, finer, layers = 32, 8, 51
    corner = 0.5 * CELL / n / finer if projection == "finite" else 0.0
    places = [(0, 0, 0.25), (0.5, 0.5, 0.75), (0.5, 0.5, 0.25), (0.5, 0, 0.75), (0, 0.5, 0.75)]
    cell = Atoms("SrTiO3", scaled_positions=places, cell=[CELL] * 3, pbc=True)
    cell.positions[:, :2] += corner
    grid, periods = (
        Grid((n, n), CELL / n, 300.0),
        9,
    )  # enough of them for the middle one to feel no face
    column = cell * (1, 1, periods)
    middle = slice(4 * slices, 5 * slices)
    faces = np.arange(periods * slices + 1) * CELL / slices
    faces = np.stack([faces[:-1], faces[1:]], 1)
    whole = Box(np.zeros(3), faces, grid)
    found = content(
        column.numbers,
        column.positions[:, ::-1],
        np.zeros(len(column)),
        whole,
        projection=projection,
    )
    ours = np.asarray(projected(found, grid))[middle]
    theirs = fine(column, grid, finer, periods * slices, projection, middle.start, middle.stop)
    assert error(limited(ours, grid), limited(theirs, grid)) < TOLERANCE
    wide = Grid((2 * n, 2 * n), CELL / n, 300.0)
    double = column * (2, 2, 1)
    found = content(
        double.numbers,
        double.positions[:, ::-1],
        np.zeros(len(double)),
        Box(np.zeros(3), faces, wide),
        projection=projection,
    )
    own = type(found)(
        tuple(
            type(k)(type(k.blobs)(*(v[middle] for v in k.blobs)), k.factor, k.shape)
            for k in found.kinds
        ),
        found.places[middle],
        found.widths,
    )
    reference = np.tile(theirs, (1, 2, 2))
    spots = [(1.0, 2.0), (3.31, 5.13)]
    assert_patterns_agree(own, reference, CELL / slices, wide, 25e-3, spots, layers)


@pytest.mark.slow
def test_twisted_bilayer():
    """80 kV, slices of 1 Å, atoms wherever they are."""
    n, width, depth = 80, 8.0, 16
    atoms = twisted_bilayer(width=7.0, vacancies=0)
    atoms.positions += np.array([width / 2, width / 2, depth / 2])
    atoms.cell, atoms.pbc = [width, width, depth], True
    grid = Grid((n, n), width / n, 80.0)
    faces = np.stack([np.arange(depth), np.arange(1, depth + 1)], 1).astype(float)
    found = content(
        atoms.numbers, atoms.positions[:, ::-1], np.zeros(len(atoms)), Box(np.zeros(3), faces, grid)
    )
    theirs = fine(atoms, grid, 8, depth)
    assert error(limited(projected(found, grid), grid), limited(theirs, grid)) < TOLERANCE
    assert_patterns_agree(found, theirs, 1.0, grid, 25e-3, [(3.1, 4.3), (4.77, 4.02)], 1)
