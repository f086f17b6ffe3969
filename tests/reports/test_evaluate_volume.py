"""Volumes made of the true atoms of a simulated tilt series, moved and degraded, against its truth."""

import ase.io
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from models import thin
from typer.testing import CliRunner

from jaxptycho import Dataset, FreeScan, Model, PerShot, PerView, PixelProbe, Volume, write
from jaxptycho.analysis.errors import Alignment, alignment_error
from jaxptycho.analysis.volumes import euler_angles, rotation_matrices
from jaxptycho.cli.main import app
from jaxptycho.io.native import read_native, read_truth, write_native
from jaxptycho.jobs.simulation import build_experiment
from jaxptycho.jobs.simulation import truth as simulated_truth
from jaxptycho.jobs.simulation_sections import Simulation
from jaxptycho.physics.mean_potential import atoms_potential
from jaxptycho.physics.waves import shift
from jaxptycho.reports.evaluate import evaluate_results
from jaxptycho.reports.evaluate_atoms import TrueAtoms, atom_rows, trace, trace_blind, true_atoms
from jaxptycho.reports.evaluate_volume import alignment, evaluate_volume

VOXEL, SHAPE = 0.4, (32, 32, 32)
JOB = {
    "specimen": {
        "phantom": "platinum_in_alumina",
        "options": {"edge": 9.0, "core": 5.0},
        "vibration_angstrom": {"Pt": 0.06, "Al": 0.08, "O": 0.1},
    },
    "microscope": {"voltage_kv": 300.0, "semiangle_mrad": 20.0, "defocus_angstrom": 20.0},
    "scan": {
        "shape": [2, 1],
        "step_angstrom": 3.0,
        "dose_per_square_angstrom": 500.0,
        "jitter_angstrom": 0.05,
    },
    "detector": {"pixels": 24, "pixel_angstrom": 0.4},
    "tilt_series": {"tilts_deg": [-50.0, 0.0, 50.0], "angle_error_deg": 0.3, "shift_angstrom": 1.0},
    "sampling": {"pixel_angstrom": 0.4, "slice_angstrom": 5.0},
    "slab_angstrom": 15.0,
}


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """What a step `simulate` writes, without the counts, which no evaluation looks at."""
    path = tmp_path_factory.mktemp("series") / "series.h5"
    experiment = build_experiment(Simulation.model_validate(JOB))
    counts, places = np.ones((3, 2, 24, 24), np.uint8), [experiment.scan] * 3
    data = Dataset(counts, places, experiment.grid, tilts=np.array(experiment.tilts))
    write_native(path, data, simulated_truth(experiment, JOB["slab_angstrom"]))
    return path


def moved(series, turn=None, by=(0.0, 0.0, 0.0), change=lambda volume: volume) -> Model:
    """A result in which the true specimen's place r lies at turn·r + by, and every view is aligned."""
    truth, grid, turn = (
        read_truth(series),
        read_native(series).grid,
        np.eye(3) if turn is None else turn,
    )
    numbers, places, vibration, waves = true_atoms(truth)
    potential = change(
        atoms_potential(numbers, places @ turn.T + by, vibration, SHAPE, VOXEL, waves)
    )
    rotations = rotation_matrices(np.deg2rad(truth["angles_deg"])) @ turn.T
    angles, shifts = euler_angles(rotations), truth["shift_angstrom"] - (rotations @ by)[:, 1:]
    own = {
        name: PerView(jnp.asarray(values))
        for name, values in (("angles", angles[:, 1:]), ("shift", shifts))
    }
    specimen = Volume(
        jnp.asarray(potential), VOXEL, PerView(jnp.asarray(angles[:, 0])), taper=0.4, **own
    )
    scan = FreeScan(PerView(PerShot(jnp.asarray(truth["positions"]))))
    heights = (
        -specimen.above - (rotations @ by)[:, 0]
    )  # in the true specimen, of where the model's probe stands
    on = heights - truth["origin_angstrom"][0]
    modes = [
        PixelProbe(jnp.asarray(m)).propagate(grid, d).waves
        for m, d in zip(truth["probe"], on, strict=True)
    ]
    return Model(PixelProbe(PerView(jnp.stack(modes))), specimen, scan, grid)


def numbers(words: str) -> list[float]:
    """The numbers among some words."""
    found = []
    for word in words.replace(",", " ").split():
        try:
            found.append(float(word))
        except ValueError:
            continue
    return found


def test_the_true_volume_turned_and_moved_is_nearly_perfect(series, tmp_path):
    turn, by = rotation_matrices(np.deg2rad([3.0, -2.0, 1.0])), np.array([0.9, -0.5, 0.3])
    write(tmp_path / "result.h5", moved(series, turn, by))
    out = tmp_path / "figures"
    rows = {
        name: words
        for name, (words,) in evaluate_results([tmp_path / "result.h5"], series, out).items()
    }
    names = {
        "alignment",
        "atoms",
        "atoms_blind",
        "displacements",
        "sections",
        "sections_truth",
        "surfaces",
        "power",
    }
    assert {path.stem for path in out.iterdir()} == names | {
        "fsc_truth",
        "fsc_parts",
        "fsc_directions",
    }
    assert len(ase.io.read(out / "atoms.xyz")) == numbers(rows["atoms"])[3]  # one for each true one
    assert len(ase.io.read(out / "atoms.cif")) == numbers(rows["atoms"])[3]
    assert (out / "atoms_blind.cif").exists()
    assert numbers(rows["atoms, found blindly"])[0] > 0.9
    assert np.abs(numbers(rows["bias of atoms"])).max() < 0.02
    np.testing.assert_allclose(numbers(rows["shift removed"]), by, atol=0.02)
    np.testing.assert_allclose(numbers(rows["rotation removed"]), [3, -2, 1], atol=0.1)
    assert numbers(rows["correlation of the potential"])[0] > 0.99
    for name in (
        "resolution against the truth",
        "resolution along z",
        "resolution within the tilts",
    ):
        assert numbers(rows[name])[0] == pytest.approx(2 * VOXEL, rel=0.06)
    assert numbers(rows["in the missing wedge"])[1] > 0.99
    for name in ("atoms of Pt", "atoms of Al", "atoms of O"):
        f1, *_, count, dz, dy, dx = numbers(rows[name])
        assert f1 > 0.97
        assert count >= 10
        assert max(dz, dy, dx) < 0.05
    assert (
        numbers(rows["shift error"])[2] < 1e-4
    )  # the greatest; where probes stand is compared at two heights
    assert numbers(rows["angle error"])[2] < 1e-4
    assert (
        numbers(rows["fidelity of the probes"])[1] > 0.999
    )  # the least, 0.9 and less where they are 10 Å apart
    assert "hand" not in rows


@pytest.mark.slow
def test_an_empty_wedge_is_seen_and_wrong_views_are_named(series):
    tilts = np.deg2rad([-50.0, 50.0])

    def without_wedge(volume):
        kz, _, kx = np.meshgrid(*map(np.fft.fftfreq, SHAPE), indexing="ij", sparse=True)
        seen = np.abs(kz) <= np.tan(tilts[1]) * np.abs(kx)
        return np.fft.ifftn(np.fft.fftn(volume) * seen).real

    model, truth = moved(series, change=without_wedge), read_truth(series)
    truth["shift_angstrom"] = truth["shift_angstrom"] + np.array(
        [[0.0, 0.6], [0.0, 0.0], [0.0, 0.6]]
    )
    rows = evaluate_volume(model, truth, read_native(series).tilts)
    assert numbers(rows["in the missing wedge"])[-2] < 0.5
    assert numbers(rows["resolution within the tilts"])[0] == pytest.approx(2 * VOXEL, rel=0.06)
    assert numbers(rows["resolution along z"] + " 99")[0] > 1.5
    f1, *_, dz, _, dx = numbers(rows["atoms of Pt"])
    assert f1 > 0.9
    assert dz > dx
    # a displacement c along x appears as c·cos 50° in the outer views, c in the middle: least squares leave most there
    q = np.cos(tilts[1])
    assert numbers(rows["shift error"])[2] == pytest.approx(0.6 * 2 * q / (1 + 2 * q**2), rel=0.05)


@pytest.mark.slow
def test_a_series_with_wrong_signs_shows_the_other_hand(series):
    truth, right = read_truth(series), moved(series)
    angles = np.deg2rad(truth["angles_deg"]) * [-1, -1, 1]
    flipped = jnp.roll(right.specimen.potential[::-1], 1, axis=0)  # about the middle voxel
    own = {"angles": PerView(jnp.asarray(angles[:, 1:])), "shift": right.specimen.shift}
    wrong = Volume(flipped, VOXEL, PerView(jnp.asarray(angles[:, 0])), taper=0.4, **own)
    rows = evaluate_volume(
        Model(right.probe, wrong, right.scan, right.grid), truth, read_native(series).tilts
    )
    assert "hand" in rows
    assert numbers(rows["correlation of the potential"])[0] > 0.99
    assert numbers(rows["shift error"])[2] < 1e-4
    assert numbers(rows["angle error"])[2] < 1e-3


def test_what_the_illumination_took_over_is_given_back(series):
    """Positions moved by a, the probe in its window by b, the specimen by both: the same patterns."""
    truth, model = read_truth(series), moved(series)
    a, b = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 2))
    kicked = [
        shift(jnp.asarray(probe), by, model.grid)
        for probe, by in zip(truth["probe"], b, strict=True)
    ]
    places, shifts = truth["positions"] + a[:, None], truth["shift_angstrom"] + a + b
    specimen = Volume(
        model.specimen.potential,
        VOXEL,
        model.specimen.tilt,
        angles=model.specimen.angles,
        shift=PerView(jnp.asarray(shifts)),
    )
    probe, scan = (
        PixelProbe(PerView(jnp.stack(kicked))),
        FreeScan(PerView(PerShot(jnp.asarray(places)))),
    )
    found = alignment(Model(probe, specimen, scan, model.grid), truth)
    true = Alignment(rotation_matrices(np.deg2rad(truth["angles_deg"])), truth["shift_angstrom"])
    assert alignment_error(found, true, VOXEL).distances().max() < 0.01
    assert np.abs(a + b).max() > 0.3


def test_other_results_get_one_sentence(series, tmp_path):
    write(tmp_path / "slices.h5", thin())
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "slices.h5"), "--truth", str(series)])
    assert done.exit_code == 2
    assert "give a result with a Volume of the same views" in done.output
    with h5py.File(series) as file:
        truth = {
            name: stored[()] for name, stored in file["truth"].items() if name != "atomic_numbers"
        }
    with pytest.raises(ValueError, match="no atomic_numbers"):
        evaluate_volume(moved(series), truth, [0.0])


def test_the_truth_is_that_of_the_parametrisation_simulated(series):
    """Kirkland's potential against Lobato's differs; against its own it does not."""
    truth = dict(read_truth(series))
    assert truth["parametrisation"] == "lobato"
    own = true_atoms(truth | {"parametrisation": "kirkland"})
    one, other = (np.asarray(atoms.potential(SHAPE, VOXEL)) for atoms in (own, true_atoms(truth)))
    assert np.linalg.norm(one - other) > 0.005 * np.linalg.norm(one)
    volume = atoms_potential(*own[:3], SHAPE, VOXEL, "kirkland")
    np.testing.assert_array_equal(volume, one)


def test_one_element_that_cannot_be_seen_leaves_the_others(series):
    """Oxygen as holes: platinum and aluminium are traced all the same."""
    atoms = true_atoms(read_truth(series))
    light = atoms.numbers == 8
    step = np.full(3, VOXEL)
    holes = atoms_potential(*(v[light] for v in atoms[:3]), SHAPE, VOXEL)
    traced = trace(atoms.potential(SHAPE, VOXEL) - 3 * holes, atoms, step, 2 * VOXEL)
    assert traced is not None
    assert traced.comparison.elements["Pt"].f1 > 0.9
    assert traced.comparison.elements["O"].matched == 0


def test_heavy_and_light_atoms_are_scored_along_every_axis():
    """Atoms of a lattice displaced to and fro by as much for all of a class: that is its RMSD, its bias is 0."""
    sites = 3.2 * np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    order = np.arange(len(sites))
    atoms = TrueAtoms(np.array([78, 78, 13, 8, 13, 8])[order % 6], sites, np.full(len(sites), 0.5))
    heavy = (atoms.numbers == 78)[:, None]
    by = np.where(heavy, [0.16, 0.04, 0.10], [0.06, 0.20, 0.12])
    there = atoms._replace(positions=sites + by * (-1.0) ** order[:, None])
    traced = trace(there.potential(SHAPE, VOXEL), atoms, np.full(3, VOXEL), 2 * VOXEL)
    assert traced is not None
    for name, chosen in (("heavy", heavy[:, 0]), ("light", ~heavy[:, 0])):
        score = traced.classes[name]
        assert score.f1 == 1
        np.testing.assert_allclose(score.rmsd, by[chosen][0], atol=0.015)
    words = atom_rows(traced, None)["heavy atoms"]
    np.testing.assert_allclose(numbers(words)[-3:], [0.16, 0.04, 0.10], atol=0.02)


def test_blind_atoms_do_not_know_the_sites(series):
    """The true sites moved elsewhere: what is found stays, and agrees no longer."""
    atoms, step = true_atoms(read_truth(series)), np.full(3, VOXEL)
    volume = atoms.potential(SHAPE, VOXEL)
    right = trace_blind(volume, atoms, step)
    wrong = trace_blind(volume, atoms._replace(positions=atoms.positions[:, ::-1] * 0.9), step)
    assert right is not None
    assert wrong is not None
    np.testing.assert_array_equal(right.found, wrong.found)
    assert wrong.comparison.overall.f1 < right.comparison.overall.f1 - 0.2


def test_a_truth_elsewhere_is_refused_in_one_sentence(series):
    truth = dict(read_truth(series))
    truth["atom_positions_angstrom"] = truth["atom_positions_angstrom"] + 50.0
    with pytest.raises(ValueError, match="do not overlap the result, a volume of"):
        evaluate_volume(moved(series), truth, read_native(series).tilts)
