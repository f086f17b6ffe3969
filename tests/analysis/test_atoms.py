"""Atoms in images and volumes: found where they were put, told apart, and every planted error found."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from models import rng
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from skimage.feature import peak_local_max

from jaxptycho.analysis import assignment
from jaxptycho.analysis.assignment import assign, compare_atoms
from jaxptycho.analysis.maxima import local_maxima
from jaxptycho.analysis.peaks import find_peaks, fit_peaks
from jaxptycho.analysis.species import species_by_integral
from jaxptycho.figures.atoms import draw_atoms, draw_displacements, draw_scores
from jaxptycho.physics.scattering import VOLT_ANGSTROM2, scattering_factor

SPACING, SHAPE = (0.3, 0.2, 0.25), (40, 60, 48)  # no two alike
NUMBERS = (6, 8, 14, 22, 38, 78)
RADIUS = (1.4, 1.2, 1.2)
ORIGIN = np.array([5.0, -1.0, 0.0])
PICOMETRE = 0.01

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def centres():
    """Six isolated atoms somewhere between the voxels."""
    grid = np.array([(3.2, 3, 3), (3.2, 9, 3), (3.2, 3, 9), (8.8, 9, 9), (8.8, 3, 9), (8.8, 9, 3)])
    return grid + rng(3).uniform(-0.15, 0.15, grid.shape)


def gaussians(positions, amplitude, sigma, background=0.0, spacing=SPACING, shape=SHAPE):
    """Samples of Gaussians on a background."""
    image = np.full(shape, float(background))
    for centre, height, width in zip(
        positions, amplitude, np.broadcast_to(sigma, np.shape(positions)), strict=True
    ):
        profiles = [
            np.exp(-(((d * np.arange(n) - c) / s) ** 2) / 2)
            for n, d, c, s in zip(shape, spacing, centre, width, strict=True)
        ]
        image += height * (
            np.einsum("a,b,c->abc", *profiles) if len(shape) == 3 else np.outer(*profiles)
        )
    return image


def real_atoms(positions, numbers, debye_waller):
    """The potential [V] of vibrating atoms, limited to the frequencies of the voxels."""
    k = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(SHAPE, SPACING, strict=True)), indexing="ij"
    )
    k2 = sum(f**2 for f in k)
    spectrum = sum(
        scattering_factor(z, k2)
        * np.exp(
            -debye_waller * k2 / 4 - 2j * np.pi * sum(f * c for f, c in zip(k, centre, strict=True))
        )
        for z, centre in zip(numbers, positions, strict=True)
    )
    return np.fft.ifftn(spectrum).real * VOLT_ANGSTROM2 / np.prod(SPACING)


def in_order(positions, of):
    """The numbers of the `of` nearest to each of the positions."""
    return cdist(positions, of).argmin(1)


def test_isolated_gaussians_are_measured_exactly():
    positions, amplitude = centres(), np.array([1.0, 3.0, 0.7, 2.0, 1.5, 0.9])
    sigma = np.array([0.45, 0.3, 0.35]) * np.linspace(0.9, 1.1, 6)[:, None]
    found = find_peaks(
        gaussians(positions, amplitude, sigma, 0.2), SPACING, 0.5, 1.5, RADIUS, origin=tuple(ORIGIN)
    )
    order = in_order(positions + ORIGIN, found.positions)
    assert sorted(order) == list(range(6))
    found = found.where(order)
    np.testing.assert_allclose(found.positions, positions + ORIGIN, atol=0.01 * PICOMETRE)
    np.testing.assert_allclose(found.amplitude, amplitude, rtol=1e-4)
    np.testing.assert_allclose(found.sigma, sigma, rtol=1e-4)
    np.testing.assert_allclose(found.background, 0.2, atol=1e-4)
    np.testing.assert_allclose(
        found.integral, amplitude * (2 * np.pi) ** 1.5 * sigma.prod(1), rtol=3e-4
    )
    assert found.residual.max() < 1e-4


def test_isolated_atoms_are_found_to_a_picometre():
    """They are no Gaussians, but the window that follows them favours no side."""
    positions = centres()
    volume = real_atoms(positions, NUMBERS, 2.0)
    found = find_peaks(volume, SPACING, 0.05 * volume.max(), 1.5, RADIUS)
    found = found.where(in_order(positions, found.positions))
    np.testing.assert_allclose(found.positions, positions, atol=PICOMETRE)
    assert found.residual.max() > 1e-3


def test_overlapping_atoms_are_fitted_together():
    """Dumbbells closer than three σ, and an atom at the volume's edge."""
    positions = np.array(
        [(3, 5, 5), (3, 5, 6.05), (7, 5, 5), (7, 6.1, 5.2), (7, 5.4, 6.2), (0.1, 10, 2)]
    )
    amplitude = np.array([1, 1.3, 1.2, 1, 1.1, 0.8])
    found = find_peaks(
        gaussians(positions, amplitude, (0.5, 0.36, 0.36), 0.1), SPACING, 0.5, 0.7, (1.5, 1.1, 1.1)
    )
    assert len(found.positions) == 6
    found = found.where(in_order(positions, found.positions))
    np.testing.assert_allclose(found.positions, positions, atol=0.1 * PICOMETRE)
    np.testing.assert_allclose(found.amplitude, amplitude, rtol=2e-3)


def test_noise_scatters_fits_as_the_cramer_rao_bound_says():
    """In two dimensions: σ_c = (noise/A)·√(2/π)·pixel for the centre of a Gaussian, without the window's weights."""
    places = np.stack(np.meshgrid(*[np.arange(2.0, 38, 4)] * 2, indexing="ij"), -1).reshape(-1, 2)
    places = places + rng(5).uniform(-0.1, 0.1, places.shape)
    noise, shape = 0.02, (200, 200)
    image = gaussians(places, np.ones(len(places)), 0.4, 0.0, (0.2, 0.2), shape) + noise * rng(
        6
    ).normal(size=shape)
    found = find_peaks(image, 0.2, 0.4, 1.0, 1.6, smooth=0.2)
    compared = compare_atoms(found.positions, places, 0.5)
    assert compared.overall.f1 == 1
    bound = noise * np.sqrt(2 / np.pi) * 0.2
    assert np.all(compared.overall.rmsd > 0.8 * bound)
    assert np.all(compared.overall.rmsd < 1.6 * bound)
    assert np.all(np.abs(compared.overall.bias) < 4 * bound / np.sqrt(len(places)))


def test_maxima_are_those_of_another_package():
    image = gaussians(centres(), np.linspace(0.5, 2, 6), 0.5) + 0.05 * rng(1).normal(size=SHAPE)
    ours = local_maxima(image, 1.0, 0.1, 0.9)
    theirs = peak_local_max(image, min_distance=1, threshold_abs=0.1, exclude_border=False)
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))
    assert len(ours) > 20
    heights = image[tuple(ours.T)]
    assert np.all(np.diff(heights) <= 0)


def test_of_close_maxima_the_brightest_stays_and_shields_nobody_further():
    line = np.zeros((1, 30))
    line[0, [5, 8, 11, 14]] = 4, 3, 2, 1
    assert local_maxima(line, 1.0, 0.5, 3.5).tolist() == [[0, 5], [0, 11]]
    assert local_maxima(np.where(line > 0, line, 0), 1.0, 5.0, 3.5).shape == (0, 2)
    assert fit_peaks(line, 1.0, np.zeros((0, 2), int), 2.0).integral.shape == (0,)


def test_planted_errors_are_found_exactly():
    """12 missing, 9 extra, all displaced by a known bias and scatter, 7 of another element."""
    r, n = rng(2), 1000
    true = np.stack(np.meshgrid(*[np.arange(0, 20, 2.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    species = np.where(r.random(n) < 0.3, "Pt", "O")
    order = r.permutation(n)
    missing, swapped = order[:12], order[12:19]
    stay = np.setdiff1d(order, missing)
    r.shuffle(stay)
    bias = np.array([0.1, -0.05, 0.02])
    moved = bias + 0.05 * r.normal(size=(len(stay), 3))
    named = species.copy()
    named[swapped] = np.where(species[swapped] == "Pt", "O", "Pt")
    extra = true[order[:9]] + [1.0, 1.0, 1.0]
    found, names = (
        np.concatenate([extra, true[stay] + moved]),
        np.concatenate([["O"] * 9, named[stay]]),
    )
    compared = compare_atoms(found, true, 0.7, names, species)
    pairs = compared.matching
    np.testing.assert_array_equal(pairs.found, np.arange(9, len(found)))
    np.testing.assert_array_equal(pairs.true, stay)
    np.testing.assert_array_equal(pairs.extra, np.arange(9))
    np.testing.assert_array_equal(pairs.missing, np.sort(missing))
    assert set(pairs.true[compared.swapped]) == set(swapped)
    assert compared.overall.precision == 988 / 997
    assert compared.overall.recall == 988 / 1000
    assert compared.overall.f1 == pytest.approx(2 * 988 / 1997)
    np.testing.assert_allclose(compared.overall.bias, moved.mean(0))
    np.testing.assert_allclose(compared.overall.rmsd, np.sqrt((moved**2).mean(0)))
    for element in ("O", "Pt"):
        score = compared.elements[element]
        right = np.sum((named[stay] == element) & (species[stay] == element))
        assert score[:3] == (np.sum(names == element), np.sum(species == element), right)


def test_a_pair_at_its_place_is_not_broken_for_the_sake_of_another():
    true = np.array([[0.0, 0, 0], [0, 0, 0.65]])
    pairs = assign(np.array([[0, 0, -0.65], [0, 0, 0.0]]), true, 0.7)
    assert (pairs.found.tolist(), pairs.true.tolist()) == ([1], [0])
    assert (pairs.extra.tolist(), pairs.missing.tolist()) == ([0], [1])


@pytest.mark.parametrize("dense", [0, 256])
def test_the_assignment_is_the_best_of_all(dense, monkeypatch):
    """Crowded clusters of unequal numbers, by either way, against the full matrix."""
    monkeypatch.setattr(assignment, "DENSE", dense)
    found, true = rng(0).uniform(0, 9, (70, 2)), rng(1).uniform(0, 9, (90, 2))
    pairs = assign(found, true, 1.0)
    gain = np.maximum(1.0 - cdist(found, true) ** 2, 0)
    best = gain[linear_sum_assignment(gain, maximize=True)]
    assert gain[pairs.found, pairs.true].sum() == pytest.approx(best.sum())
    assert len(pairs.found) == np.sum(best > 0)
    assert len(set(pairs.true)) == len(pairs.true)


def test_a_hundred_thousand_atoms_are_assigned():
    true = rng(0).uniform(0, 130, (100_000, 3))
    order = rng(1).permutation(len(true))
    pairs = assign(true[order], true, 0.7)
    np.testing.assert_array_equal(pairs.true, order)


def test_nothing_found_is_a_score_too():
    score = compare_atoms(np.zeros((0, 3)), np.zeros((4, 3)) + np.arange(4)[:, None]).overall
    assert (score.recall, score.f1, score.matched) == (0, 0, 0)
    assert np.isnan(score.precision)
    assert np.isnan(score.rmsd).all()


@pytest.mark.parametrize("parts", [(0.5, 0.5), (0.97, 0.03), (0.04, 0.96), (0.3, 0.6, 0.1)])
@pytest.mark.parametrize("known", [False, True])
def test_elements_are_told_by_their_integrals(parts, known):
    strength = {"O": 2.0, "Al": 5.9, "Pt": 13.0}
    elements = list(strength)[: len(parts)]
    labels = rng(4).choice(len(parts), 2000, p=parts)
    integrals = (
        37.0 * np.array(list(strength.values()))[labels] * np.exp(0.1 * rng(5).normal(size=2000))
    )
    named = species_by_integral(
        integrals, {e: strength[e] for e in elements} if known else elements
    )
    right = named.symbols == np.array(elements)[labels]
    assert right.mean() > 0.995
    assert named.probability[~right].mean() < 0.9 if (~right).any() else True
    assert named.spread == pytest.approx(0.1, rel=0.1)
    for element, part in zip(elements, parts, strict=True):
        assert named.integral[element] == pytest.approx(37 * strength[element], rel=0.05)
        assert named.fraction[element] == pytest.approx(part, abs=0.03)


def test_figures_show_every_error():
    true = centres()
    found = np.concatenate([true[1:], [[5.0, 5.0, 5.0]]])
    names = np.array(["O"] * 6)
    compared = compare_atoms(found, true, 0.7, np.array(["Al", *names[1:]]), names)
    figure = draw_atoms(gaussians(true, np.ones(6), 0.4), SPACING, found, true, compared)
    assert len(figure.axes) == 3
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["matched: 5", "missing: 1", "extra: 1", "swapped: 1"]
    flat = compare_atoms(found[:, 1:], true[:, 1:])
    image = gaussians(true, np.ones(6), 0.4).sum(0)
    assert len(draw_atoms(image, SPACING[1:], found[:, 1:], true[:, 1:], flat).axes) == 1
    assert isinstance(draw_displacements(found, true, compared), Figure)


def test_scores_of_classes_are_drawn_over_cases():
    true, names = centres(), ["Pt"] * 3 + ["O"] * 3
    one = compare_atoms(true + np.array([0.1, 0.2, 0.3]), true, 0.7, names, names).elements
    figure = draw_scores({"±20°": one, "±45°": {"Pt": one["Pt"]}})  # no O was found in the second
    left, *others = figure.axes
    curves = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert curves == {"O": [1.0], "Pt": [1.0, 1.0]}
    assert [ax.get_title() for ax in others] == ["RMSD of O atoms (Å)", "RMSD of Pt atoms (Å)"]
    for axis, expected in zip(others[1].lines, (0.1, 0.2, 0.3), strict=True):
        np.testing.assert_allclose(axis.get_ydata(), [expected] * 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_peaks(np.ones((4, 4)), -1.0, 0.5, 1.0), "spacing"),
        (lambda: find_peaks(np.full((4, 4), np.nan), 1.0, 0.5, 1.0), "not finite"),
        (lambda: fit_peaks(np.ones((1, 9, 9)), 1.0, np.array([[0, 4, 4]]), 2.0), "too little"),
        (lambda: assign(np.zeros((2, 3)), np.zeros((2, 2))), "coordinates"),
        (lambda: assign(np.zeros((2, 3)), np.zeros((2, 3)), 0.0), "tolerance"),
        (lambda: compare_atoms(np.zeros((2, 3)), np.zeros((1, 3)), 0.7, ["O"], ["O"]), "one each"),
        (lambda: compare_atoms(np.zeros(3), np.zeros((1, 3))), r"\[atom, axis\]"),
        (lambda: species_by_integral(np.array([1.0, -2.0]), ["O"]), "not positive"),
        (lambda: species_by_integral(np.array([1.0, 1.0]), ["O", "Pt"]), "cannot be divided"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
