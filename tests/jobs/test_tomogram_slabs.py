"""A tilt series in slabs and on other devices: angles that are free, seeds, a kill."""

from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from killed import gone_on, killed
from listeners import AfterViews
from stepping import loop_of
from tilts import COARSE, FINE, job_of

from jaxptycho import load
from jaxptycho.jobs.runner import start
from jaxptycho.runs.state import Diverged, Progress
from jaxptycho.tomography import poses

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.mark.slow
def test_slabs_with_free_angles_give_the_volume_and_the_poses_of_one_device(series):
    """One view, all of its shots in a batch: so that the batches are the same; Adam makes much of rounding in vacuum."""
    ended = []
    for run in ({"devices": 1}, {"devices": 4, "slabs": 2}):
        loop, model = loop_of(job_of(series, run=run, step=[FINE | {"epochs": 5}]), without={0, 2})
        progress = Progress(model)
        assert loop.run(progress) is None
        ended.append(progress)
    one, split = (p.model.specimen for p in ended)
    np.testing.assert_allclose(
        [r.loss for r in ended[1].history], [r.loss for r in ended[0].history], rtol=1e-6
    )
    assert np.abs(one.angles.values[1]).max() > np.deg2rad(
        2
    )  # more than halos are made for in a large volume
    for name in ("angles", "tilt", "shift"):
        np.testing.assert_allclose(
            getattr(split, name).values, getattr(one, name).values, atol=1e-5
        )
    np.testing.assert_allclose(
        split.potential, one.potential, atol=1e-3 * float(one.potential.max())
    )


def test_a_view_that_turns_beyond_the_halo_of_slabs_ends_the_run_with_its_name(series):
    loop, model = loop_of(job_of(series, run={"devices": 4, "slabs": 2}, step=[COARSE]))
    good = Progress(model)
    angles = good.model.specimen.angles.values.at[1, 0].set(np.deg2rad(-7.0))
    turned = Progress(eqx.tree_at(lambda m: m.specimen.angles.values, good.model, angles))
    name = "view 1 is rotated about x by 7°, halos of slabs allow at most 6°; use one slab"
    with pytest.raises(Diverged, match=f"in step 'coarse', epoch 1 {name}"):
        loop._require_inside(turned, good)
    assert not turned.model.specimen.angles.values.any()  # the last good model is kept


def test_shifts_that_are_no_numbers_are_not_blamed_on_a_rate_or_a_margin(series):
    """Neither where a run starts from them, nor where an epoch ends with them."""
    loop, model = loop_of(job_of(series, step=[COARSE]))
    good = Progress(model)
    shifts = good.model.specimen.shift.values.at[1, 0].set(np.nan)
    spoilt = Progress(eqx.tree_at(lambda m: m.specimen.shift.values, good.model, shifts))
    name = r"specimen\.shift\[1, 0\] is not a number: this is no matter of a rate or a margin"
    with pytest.raises(ValueError, match=name):
        loop.run(spoilt)
    with pytest.raises(Diverged, match=name):
        loop._require_inside(spoilt, good)


def arrays(file: Path):
    return jax.tree.leaves(eqx.filter(load(file), eqx.is_array))


@pytest.mark.slow
def test_one_seed_decides_a_series_and_a_kill_on_four_devices_changes_nothing_on_two(
    series, tmp_path
):
    run = {"devices": 4, "checkpoint_every": 1, "seed": 3}
    job = job_of(series, run=run)
    for name in ("whole", "again"):
        assert start(job, tmp_path / name).finished
    for file in ("steps/00-views/view_02.h5", "steps/02-linear/model.h5", "result.h5"):
        for one, other in zip(
            *(arrays(tmp_path / name / file) for name in ("whole", "again")), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    listener, views = AfterViews(1), Path("steps", "00-views")
    start(job_of(series, run=run | {"seed": 4}), tmp_path / "other", listener, listener.stop)
    (first,) = (tmp_path / "other" / views).iterdir()
    pairs = zip(arrays(first), arrays(tmp_path / "whole" / views / first.name), strict=True)
    assert not all(np.array_equal(*pair) for pair in pairs)  # its batches were drawn by another lot
    assert killed(
        job, tmp_path / "run", after=3 * 14 + 1
    )  # in the second epoch, at whose end views move
    assert gone_on(tmp_path / "run", devices=2).finished
    for one, other in zip(
        *(arrays(tmp_path / name / "result.h5") for name in ("whole", "run")), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-7 * np.abs(other).max())


def test_lots_of_poses_follow_the_seed(series):
    """Which patterns a Newton step of a view looks at: the same for the same seed, others for another one."""
    few = [FINE | {"pose_shots": 3}]
    drawn = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        job = job_of(series, step=few, run={"devices": 1, "seed": seed})
        loop, model = loop_of(job)
        seen = drawn[name] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                poses,
                "make_batch",
                lambda data, view, shots, size, seen=seen: seen.append([view, *shots]),
            )
            patched.setattr(poses, "STEPS", {"all": lambda model, batch, budget: model})
            for epoch in (0, 1):
                loop.plan.after_epoch(model, epoch)
    assert drawn["one"] == drawn["same"] != drawn["other"]
    assert drawn["one"][:3] != drawn["one"][3:]  # others in every epoch
