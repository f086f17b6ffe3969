"""Errors against a truth: what no pattern shows counts for nothing, what was planted is found."""

import numpy as np
import pytest
from models import rng
from scipy.spatial.transform import Rotation

from jaxptycho.analysis.errors import Alignment, alignment_error, position_error, probe_fidelity
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.figures.errors import draw_alignment, draw_positions_error, draw_probes

PIXEL = np.array([0.2, 0.25])
SHAPE = (40, 36)


def modes(count=3, seed=0):
    """Localised modes without symmetry, of falling power."""
    y, x = (np.indices(SHAPE) - np.array(SHAPE)[:, None, None] // 2) / 5
    noise = rng(seed).normal(size=(2, count, 4))
    shapes = np.stack([np.ones(SHAPE), y, x + 0.3 * y**2, y * x])
    waves = (
        np.tensordot(noise[0] + 1j * noise[1], shapes, 1) / np.arange(1, count + 1)[:, None, None]
    )
    return waves * np.exp(-(y**2) - x**2)


def displaced(waves, shift, ramp):
    """Waves that stand at `shift` [pixels], under a ramp [rad/pixel]."""
    ky, kx = (np.fft.fftfreq(n) for n in SHAPE)
    moved = np.fft.ifft2(
        np.fft.fft2(waves) * np.exp(-2j * np.pi * (ky[:, None] * shift[0] + kx * shift[1]))
    )
    return moved * np.exp(1j * np.tensordot(ramp, np.indices(SHAPE), 1))


@pytest.mark.parametrize("count", [1, 3])
def test_a_probe_is_itself_whatever_its_gauge(count):
    """Shift, ramp, phase, dose and the choice of the modes."""
    true, shift, ramp = modes(count), np.array([1.3, -2.6]), np.array([0.11, -0.21])
    unitary = np.linalg.qr(
        rng(1).normal(size=(count, count)) + 1j * rng(2).normal(size=(count, count))
    )[0]
    result = probe_fidelity(3 * np.tensordot(unitary, displaced(true, shift, ramp), 1), true, PIXEL)
    assert result.fidelity == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(result.shift / PIXEL, shift, atol=1e-2)
    np.testing.assert_allclose(result.ramp * PIXEL, ramp, atol=1e-2)


def test_fidelity_is_that_of_the_textbooks():
    """|⟨ψ,φ⟩|² of two waves; (Tr √(√ρ σ √ρ))² of mixed ones, written out with density matrices."""
    y, x = np.indices(SHAPE) - np.array(SHAPE)[:, None, None] // 2
    first, other = (np.exp(-(y**2 + x**2) / (2 * w**2)) + 0j for w in (3.0, 5.0))
    overlap = 2 * 3.0 * 5.0 / (3.0**2 + 5.0**2)  # ⟨ψ,φ⟩ of unit Gaussians in two dimensions
    assert probe_fidelity(first[None], other[None], PIXEL).fidelity == pytest.approx(
        overlap**2, rel=1e-6
    )
    even = [
        np.stack([first, y * first * weight]) for weight in (0.2, 0.5)
    ]  # symmetric: best where they are
    flat = [m.reshape(2, -1).T / np.linalg.norm(m) for m in even]
    basis = np.linalg.qr(np.concatenate(flat, 1))[0]  # in which the density matrices are small
    rho, sigma = ((basis.conj().T @ m) @ (basis.conj().T @ m).conj().T for m in flat)
    values, vectors = np.linalg.eigh(rho)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.conj().T
    inner = np.linalg.eigvalsh(root @ sigma @ root)
    expected = np.sum(np.sqrt(np.maximum(inner, 0))) ** 2
    assert probe_fidelity(even[0], even[1], PIXEL).fidelity == pytest.approx(expected, abs=1e-4)


def test_positions_are_free_of_their_map():
    true = rng(3).uniform(0, 50, (200, 2))
    noise = rng(4).normal(size=true.shape)
    matrix = np.array([[1.02, 0.03], [-0.01, 0.97]])
    found = (true - 7) @ matrix.T + [4.0, -9.0]
    exact = position_error(found, true)
    np.testing.assert_allclose(exact.residual, 0, atol=1e-10)
    np.testing.assert_allclose(exact.matrix, matrix)
    np.testing.assert_allclose(true.mean(0) + exact.shift, found.mean(0))
    moved = position_error(true + 3 + noise, true, affine=False)
    np.testing.assert_allclose(moved.residual, noise - noise.mean(0), atol=1e-10)
    np.testing.assert_array_equal(moved.matrix, np.eye(2))
    assert position_error(found, true, affine=False).residual.std() > 0.3
    one = position_error(
        true + 5.0 * (np.arange(200) == 7)[:, None] * [0.6, 0.8], true, affine=False
    )
    assert (
        one.summary()["position error"] == "0.353 Å rms, mean 0.0498 Å, at most 4.97 Å"
    )  # 5 Å less 1/200 of it
    with pytest.raises(ValueError, match="199 positions came with 200 true ones"):
        position_error(true[1:], true)


def series(views=21):
    """A tilt series about y, every view a little off."""
    angles = np.stack(
        [np.deg2rad(np.linspace(-60, 60, views)), *0.01 * rng(5).normal(size=(2, views))], -1
    )
    return Alignment(rotation_matrices(angles), rng(6).normal(size=(views, 2)))


def seen_by(alignment: Alignment, turn, translation) -> Alignment:
    """The same views of a specimen that was moved by −translation and then turned."""
    shifts = alignment.shifts + np.einsum("vij,j->vi", alignment.rotations[:, 1:], translation)
    return Alignment(alignment.rotations @ turn.T, shifts)


def test_an_alignment_is_free_of_its_gauge():
    true, turn, translation = (
        series(),
        rotation_matrices(np.array([0.1, -0.2, 0.15])),
        np.array([5.0, -2.0, 8.0]),
    )
    found = seen_by(true, turn, translation)
    r = np.array(
        [3.0, 1.0, -2.0]
    )  # the definition: every view sees every place where it did before
    both = ((true, r), (found, turn @ (r - translation)))
    at = [
        np.einsum("vij,j->vi", views.rotations, place)[:, 1:] + views.shifts
        for views, place in both
    ]
    np.testing.assert_allclose(*at, atol=1e-12)
    error = alignment_error(found, true, 0.5)
    np.testing.assert_allclose(error.shifts, 0, atol=1e-10)
    np.testing.assert_allclose(error.turns, 0, atol=1e-6)
    np.testing.assert_allclose(error.translation, translation)
    np.testing.assert_allclose(error.rotation, turn, atol=1e-10)


def test_planted_errors_of_an_alignment_are_found():
    true, views = series(), 21
    turns, shifts = np.zeros((views, 3)), np.zeros((views, 2))
    turns[4, 1], shifts[7] = (
        0.5,
        (0.3, -0.4),
    )  # one view turned about y by half a degree, one shifted by 0.5 Å
    wrong = Rotation.from_rotvec(turns[:, ::-1], degrees=True).as_matrix()[:, ::-1, ::-1]
    found = seen_by(
        Alignment(wrong @ true.rotations, true.shifts + shifts),
        rotation_matrices(np.full(3, 0.1)),
        np.ones(3),
    )
    error = alignment_error(found, true, 0.25)
    np.testing.assert_allclose(
        error.turns, turns, atol=0.5 / views * 1.01
    )  # the mean takes its share
    np.testing.assert_allclose(
        error.turns - turns, np.broadcast_to((error.turns - turns).mean(0), (views, 3)), atol=0.03
    )
    assert error.distances().argmax() == 7
    assert error.distances().max() == pytest.approx(0.5, abs=0.1)
    words = error.summary()
    assert words["shift error"].endswith(f"maximum {error.distances().max():.3g} Å")
    assert words["shift error in voxels"].endswith(
        f"maximum {4 * error.distances().max():.3g} voxels"
    )
    assert words["angle error"].endswith("°")
    with pytest.raises(ValueError, match=r"alignments of \[20, 21\] views"):
        alignment_error(Alignment(true.rotations[1:], true.shifts[1:]), true, 1.0)


def test_figures_tell_the_numbers():
    true = rng(3).uniform(0, 50, (60, 2))
    figure = draw_positions_error(
        position_error(true + 0.1 * rng(4).normal(size=true.shape), true), true
    )
    assert "Root mean square 0.1" in figure.axes[1].get_title()
    assert (
        not draw_positions_error(position_error(true, true, affine=False), true).axes[0].collections
    )
    series_error = alignment_error(seen_by(series(), np.eye(3), np.ones(3)), series(), 0.5)
    figure = draw_alignment({"before": series_error, "after": series_error}, np.linspace(-1, 1, 21))
    assert [len(ax.lines) for ax in figure.axes] == [3, 2]  # and the voxel
    assert [ax.axison for ax in draw_probes(modes(3), modes(1), PIXEL).axes] == [True] * 4 + [
        False
    ] * 2
