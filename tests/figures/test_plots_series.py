"""How the views of a series stand, as a figure: every number where it belongs."""

import jax.numpy as jnp
import numpy as np
from models import GRID, thin

from jaxptycho import PerView, Volume
from jaxptycho.figures.series import draw_poses
from jaxptycho.tomography.poses import poses_of

TILTS = np.deg2rad([-20.0, 0.0, 30.0])
SHIFTS = [[1.0, -2.0], [0.5, 0.25], [-1.5, 3.0]]  # Å


def poses(angles):
    tilts, shifts = PerView(jnp.asarray(TILTS + 0.01)), PerView(jnp.asarray(SHIFTS))
    return poses_of(
        thin(
            specimen=Volume(
                jnp.zeros((4, 8, 8)), (0.5, *GRID.pixel), tilts, angles=angles, shift=shifts
            )
        )
    )


def test_shifts_and_turns_of_two_alignments():
    angles = np.deg2rad([[0.1, -0.2], [0.3, 0.4], [0.5, 0.6]])
    figure = draw_poses(
        {"before": poses(None), "result": poses(PerView(jnp.asarray(angles)))}, TILTS
    )
    shifts, turns = (
        {line.get_label(): line.get_xydata().T for line in ax.lines} for ax in figure.axes
    )
    assert set(shifts) == {f"{axis}, {name}" for axis in "yx" for name in ("before", "result")}
    for column, axis in enumerate("yx"):
        np.testing.assert_allclose(
            shifts[f"{axis}, result"], [np.rad2deg(TILTS), np.array(SHIFTS)[:, column]]
        )
    np.testing.assert_allclose(turns["about y, before"][1], np.rad2deg(0.01), rtol=1e-6)
    np.testing.assert_allclose(turns["about x, before"][1], 0)
    np.testing.assert_allclose(turns["about x, result"][1], [0.1, 0.3, 0.5])
    np.testing.assert_allclose(turns["about z, result"][1], [-0.2, 0.4, 0.6])
    assert [ax.get_ylabel() for ax in figure.axes] == ["shift (Å)", "rotation (°)"]
