"""`reconstruct` as people call it: the model it returns, what it shows, and what stops it."""

import jax
import numpy as np
import optax
import pytest
from scans import ABOUT, GRID, blobs

import jaxptycho as jp
from jaxptycho.analysis.fit import goodness_of_fit

pytestmark = pytest.mark.usefixtures("quick_to_compile")

QUIET = {"progress": False, "devices": 1, "batch": 32}


@pytest.fixture(scope="module")
def data():
    counts, positions = blobs(side=8, dose=2e3)
    return jp.Dataset(counts, positions, GRID, about=ABOUT)


@pytest.fixture(scope="module")
def first(data):
    return jp.first_model(data, specimen="phase")


@pytest.fixture(scope="module")
def result(data, first):
    rates = {"specimen": optax.adam(3e-2), "probe": optax.adam(5e-3)}
    return jp.reconstruct(
        data, first, epochs=6, hold_out=0.1, optimiser=jp.per_part(rates), **QUIET
    )


def test_the_first_model_is_not_used_up(result, first):
    assert not any(
        leaf.is_deleted() for leaf in jax.tree.leaves(first) if isinstance(leaf, jax.Array)
    )
    assert np.isfinite(result.model.specimen.phase).all()
    assert result.losses[-1] < 0.9 * result.losses[0]
    assert result.verdict.explains


def test_the_model_is_that_of_the_least_held_out_loss(data, first):
    """Rates that grow too large spoil the last epochs."""
    wild = optax.exponential_decay(1e-2, 2, 30.0)
    result = jp.reconstruct(
        data,
        first,
        epochs=6,
        hold_out=0.1,
        optimiser=jp.per_part(specimen=optax.sgd(wild)),
        loss=jp.losses.poisson,
        **QUIET,
    )
    held = [row.held_out for row in result.history]
    assert result.epoch == 1 + int(np.argmin(held)) < len(held)
    kept = jp.losses.misfit(jp.losses.poisson)
    shots = jp.split(data, 0.1)[1][0]
    found = float(kept(result.model, jp.make_batch(data, 0, shots)))
    np.testing.assert_allclose(found, min(held), rtol=1e-5)


def test_a_callback_sees_every_epoch_and_stops(data, first):
    seen = []

    def each(epoch, model, info):
        seen.append((epoch, info["loss"], float(np.abs(model.specimen.phase).max())))
        return epoch == 2

    result = jp.reconstruct(data, first, epochs=5, callback=each, **QUIET)
    assert [epoch for epoch, *_ in seen] == [1, 2]
    assert result.stopped
    assert len(result.history) == 2
    assert seen[1][1] == result.losses[1]


def test_the_same_seed_gives_the_same_model_and_compiles_nothing(data, first, caplog):
    """Nor do other epochs; the optimiser is made anew, as in a notebook."""

    def run(epochs):
        optimiser = jp.per_part(specimen=optax.adam(2e-2))
        return jp.reconstruct(data, first, epochs=epochs, seed=3, optimiser=optimiser, **QUIET)

    one = run(2).model
    with jax.log_compiles():
        other = run(2).model
        run(3)
    assert not [text for text in caplog.messages if "Compiling" in text]
    np.testing.assert_array_equal(one.specimen.phase, other.specimen.phase)


def test_a_loss_of_your_own_is_taken_as_it_is(data, first):
    def own(model, batch):
        return jp.misfit(jp.amplitude)(model, batch) + 7.0

    def noise(predicted, counts):
        return jp.amplitude(predicted, counts)

    plain, raised, same = (
        jp.reconstruct(data, first, loss=loss, epochs=1, **QUIET)
        for loss in (jp.amplitude, own, noise)
    )
    np.testing.assert_allclose(raised.losses[0], plain.losses[0] + 7.0, rtol=1e-6)
    assert same.losses == plain.losses


def test_the_fit_is_that_of_all_patterns(result, data):
    """Sums of those learned from and of those held out, of different numbers, in equal batches."""
    for name, value in goodness_of_fit(result.model, data).items():
        assert result.fit[name] == pytest.approx(value, rel=1e-6)
    held = jp.split(data, 0.1)[1]
    chi2 = goodness_of_fit(result.model, data, held)["chi2"]
    assert result.fit["held_out_chi2"] == pytest.approx(chi2, rel=1e-6)


def test_a_result_is_saved_and_shown(result, tmp_path):
    result.save(tmp_path / "result.h5")
    again = jp.load(tmp_path / "result.h5")
    np.testing.assert_array_equal(again.specimen.phase, result.model.specimen.phase)
    with pytest.raises(FileExistsError):
        result.save(tmp_path / "result.h5")
    assert len(result.show().axes) >= 1
    assert "<img" in result._repr_html_()
    assert "<table>" in result.model._repr_html_()


def test_a_dataset_prints_what_inspect_prints(data):
    assert "semiangle_mrad: 25" in repr(data)
    assert "64 of 48 × 48 pixels" in repr(data)
    assert "<th>patterns</th>" in data._repr_html_()
    assert data.show().axes


def test_every_figure_is_drawn(result, data, first):
    drawn = (
        jp.figures.object(result.model),
        jp.figures.summary(result.model, data, result.history),
        jp.figures.object(result.model, band_pass=(1.0, 5.0)),
        jp.figures.slices(result.model),
        jp.figures.probe(result.model),
        jp.figures.positions(result.model, before=first),
        jp.figures.patterns(result.model, data),
        jp.figures.loss(result.history),
    )
    assert all(figure.axes for figure in drawn)
    with pytest.raises(ValueError, match="does not rotate"):
        jp.figures.volume(result.model)


def test_a_used_up_model_says_so(data, first):
    optimiser = jp.per_part(specimen=optax.adam(1e-2))
    step = jp.make_step(jp.misfit(jp.amplitude), optimiser)
    model = jp.first_model(data, specimen="phase")
    state = jp.init_state(optimiser, model)
    batch = jp.make_batch(data, 0, range(8))
    newer, _, _ = step(model, state, batch)
    for use in (lambda: step(model, state, batch), lambda: jp.predict(model, np.arange(2))):
        with pytest.raises(ValueError, match="used up by a step"):
            use()
    assert np.isfinite(jp.predict(newer, np.arange(2))).all()


@pytest.mark.parametrize("solver", ["adam", "sgd", "momentum", "layerwise_adam", "epie", "rpie"])
def test_no_solver_returns_a_worse_model_than_it_was_given(data, result, solver):
    """At a rate that ruins the model in every epoch: the one given is the result, and it says so."""
    make = jp.solvers.SOLVERS[solver]
    wild = jp.per_part(specimen=make(30.0), probe=make(30.0))
    with pytest.warns(UserWarning, match="no epoch lowered the held-out loss"):
        found = jp.reconstruct(data, result.model, epochs=2, hold_out=0.1, optimiser=wild, **QUIET)
    assert found.epoch == 0
    np.testing.assert_array_equal(found.model.specimen.phase, result.model.specimen.phase)


def test_default_rates_end_by_themselves_close_to_the_truth(data, first):
    result = jp.reconstruct(data, first, epochs=100, hold_out=0.1, **QUIET)
    assert len(result.history) < 60
    held = [row.held_out for row in result.history]
    assert held[result.epoch - 1] == min(held)
    assert result.verdict.explains
