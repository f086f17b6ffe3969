"""Alignment of films, which go on beyond the field of every view: made of atoms, turned as atoms."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from jaxptycho import Grid
from jaxptycho.analysis.errors import Alignment, alignment_error
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.simulate.phantoms import amorphous_carbon
from jaxptycho.simulate.phantoms.arrange import merge, rotate_atoms
from jaxptycho.simulate.stacks import Box, content, projected
from jaxptycho.tomography.alignment import align
from jaxptycho.tomography.coarse import film_shifts
from jaxptycho.tomography.projections import Geometry

FIELD, PIXEL, FINE, NOISE = 36.0, 0.5, 2, 10.0  # Å, Å, samples for a pixel, V·Å
WIDE, HIGH, THICK = 110.0, 60.0, 20.0  # Å, of a film that holds the field at ±60°


def film(seed: int, particles: int = 24, radius: float = 3.5) -> Atoms:
    """Crystals of platinum, turned at random, in amorphous carbon."""
    rng, places = np.random.default_rng(100 + seed), []
    half = np.array([WIDE / 2 - radius, HIGH / 2 - radius, THICK / 2])
    while len(places) < particles:
        place = half * rng.uniform(-1, 1, 3)
        if all(np.linalg.norm(place - other) > 2.2 * radius for other in places):
            places.append(place)

    def crystal(place):
        atoms = bulk("Pt", "fcc", cubic=True).repeat(6)
        atoms.positions -= atoms.positions.mean(0)
        atoms = atoms[np.linalg.norm(atoms.positions, axis=1) < radius * rng.uniform(0.7, 1.2)]
        atoms.euler_rotate(*rng.uniform(0, 360, 3))
        return Atoms(atoms.numbers, positions=atoms.positions + place)

    carbon = amorphous_carbon(WIDE, THICK, seed=seed)
    carbon = carbon[np.abs(carbon.positions[:, 1]) < HIGH / 2]
    return merge(*map(crystal, places), carbon, apart=1.8)


def views(seed: int):
    """Projected potentials [V·Å] of 13 views of ±60° with shifts within 3.4 Å and angles within 0.2°, and how they stand."""
    rng, atoms, n = np.random.default_rng(seed), film(seed), int(FIELD / PIXEL)
    nominal = np.deg2rad(np.linspace(-60, 60, 13))
    euler = np.stack([nominal, 0 * nominal, 0 * nominal], 1) + np.deg2rad(0.2) * rng.uniform(
        -1, 1, (13, 3)
    )
    shifts, step = 3.4 * rng.uniform(-1, 1, (13, 2)), PIXEL / FINE
    corner = -FINE * (n // 2) * step - (FINE - 1) / 2 * step
    grid = Grid((FINE * n, FINE * n), step, voltage_kv=300)
    box = Box(np.array([-100.0, corner, corner]), np.array([[0, 200.0]]), grid)

    def seen(angles, shift):
        places = rotate_atoms(atoms, *np.rad2deg(angles)).positions[:, ::-1] + np.array([0, *shift])
        inside = (np.abs(places[:, 1:]) < FIELD / 2 + 3).all(1)
        parts = content(
            atoms.numbers[inside],
            places[inside],
            np.full(inside.sum(), 0.5),
            box,
            projection="infinite",
        )
        return np.asarray(projected(parts, grid)).reshape(n, FINE, n, FINE).mean((1, 3))

    images = np.stack([seen(*view) for view in zip(euler, shifts, strict=True)])
    return (
        images + NOISE * rng.normal(size=images.shape),
        nominal,
        Alignment(rotation_matrices(euler), shifts),
    )


def distances(nominal, shifts, true: Alignment):
    """Errors of the shifts [Å] without the gauge."""
    rotations = np.asarray(Geometry(nominal).rotations(), float)
    return alignment_error(Alignment(rotations, np.asarray(shifts, float)), true, PIXEL).distances()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_films_are_correlated_where_neighbours_see_the_same(seed):
    """Whole images of these two go astray by 8 and 15 Å. A corner that holds nonsense does no harm."""
    images, nominal, true = views(seed)
    seen = np.ones(images.shape, bool)
    seen[:, :6, :9] = False
    shifts = film_shifts(np.where(seen, images, 1e5), seen, nominal, (PIXEL, PIXEL))
    errors = distances(nominal, shifts, true)
    assert distances(nominal, np.zeros((13, 2)), true).mean() > 2
    assert errors.mean() < 0.6
    assert errors.max() < 1.5


@pytest.mark.slow
def test_a_film_is_aligned_by_its_common_field():
    images, nominal, true = views(1)
    depth = int(0.6 * FIELD / PIXEL) + 2  # so that it fills the field at every tilt
    shape, options = (
        (depth, *images.shape[1:]),
        {"free": "constant", "bins": (4, 2), "turns": 5, "iterations": 8},
    )
    found = align(images, Geometry(nominal), PIXEL, shape, angles=False, extended=True, **options)
    errors = distances(nominal, found.geometry.shifts, true)
    assert errors.mean() < 0.25
    assert errors.max() < 0.5
    assert found.bad == []
