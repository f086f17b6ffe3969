"""Results and states come back as they went, and a failed write leaves what was there."""

import errno

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import GRID, MODELS, ORIGIN, batch_for, thin

from jaxptycho import (
    Grid,
    Model,
    PerShot,
    SliceStack,
    init_state,
    load,
    make_step,
    misfit,
    per_part,
    poisson,
    write,
)
from jaxptycho.io.results import load_attributes, load_history, load_state, save_state
from jaxptycho.parts.detector import AbstractDetector


def same(one, other):
    """The same structure, types and values."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(a) is type(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "result.h5"
    write(
        path,
        thin(),
        {"epoch": np.arange(3), "loss": jnp.array([3.0, 2.0, 1.5]), "step": ["a", "a", "ü"]},
        job="x = 1",
    )
    return path


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("like", [False, True])
def test_every_model_comes_back(tmp_path, name, like):
    model = MODELS[name]()
    write(tmp_path / "result.h5", model)
    other = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_array(x) else x, model)
    same(load(tmp_path / "result.h5", like=other if like else None), model)


def test_the_file_mirrors_the_models_own_tree(tmp_path):
    model = MODELS["affine_scan"]()
    write(tmp_path / "result.h5", model)
    with h5py.File(tmp_path / "result.h5") as file:
        np.testing.assert_array_equal(file["model/probe/waves"][()], model.probe.waves)
        np.testing.assert_array_equal(file["model/scan/matrix"][()], model.scan.matrix)
        np.testing.assert_array_equal(
            file["model/scan/nominal/values"][()], model.scan.nominal.values
        )
        assert file.attrs["format"] == "jaxptycho-result"
        assert {f"{p}_version" for p in ("jaxptycho", "jax", "numpy")} <= set(file.attrs)


def test_a_loaded_model_goes_on_without_a_new_trace(tmp_path):
    model = jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, thin())
    optimiser = per_part(specimen=optax.adam(1e-2), probe=optax.adam(1e-2))
    traces = []

    def loss(model, batch):
        traces.append(1)
        return misfit(poisson)(model, batch)

    step, batch = make_step(loss, optimiser), batch_for(model)
    model, state, _ = step(model, init_state(optimiser, model), batch)
    write(tmp_path / "result.h5", model)
    save_state(tmp_path / "state.h5", state)
    back = load(tmp_path / "result.h5")
    kept = load_state(tmp_path / "state.h5", init_state(optimiser, back))
    same(kept, state)
    traces.clear()
    on, _, info = step(model, state, batch)
    resumed, _, resumed_info = step(back, kept, batch)
    assert not traces
    same(resumed, on)
    assert float(info["loss"]) == float(resumed_info["loss"])


def test_history_and_attributes(result):
    history = load_history(result)
    np.testing.assert_array_equal(history["epoch"], [0, 1, 2])
    np.testing.assert_array_equal(history["loss"], [3.0, 2.0, 1.5])
    assert list(history["step"]) == ["a", "a", "ü"]
    assert load_attributes(result)["job"] == "x = 1"


def test_losses_alone_are_a_history_and_a_job_may_be_long(tmp_path):
    write(tmp_path / "a.h5", thin(), jnp.array([2.0, 1.0]), job="x" * 200_000)
    np.testing.assert_array_equal(load_history(tmp_path / "a.h5")["loss"], [2.0, 1.0])
    assert len(load_attributes(tmp_path / "a.h5")["job"]) == 200_000
    write(tmp_path / "b.h5", thin())
    assert load_history(tmp_path / "b.h5") == {}


class Everything(AbstractDetector):
    """One field of every kind that a part of one's own may have."""

    array: jax.Array
    single: jax.Array
    host: np.ndarray
    mask: jax.Array
    number: float
    count: int
    nothing: None
    inside: dict
    several: list
    per_shot: PerShot
    pair: tuple[float, None] = eqx.field(static=True)
    word: str = eqx.field(static=True)
    flag: bool = eqx.field(static=True, default=True)
    rate: complex = eqx.field(static=True, default=0.0)

    def detect(self, wave, grid):
        return jnp.abs(wave[0]) ** 2


def everything() -> Model:
    return thin(
        detector=Everything(
            jnp.arange(3),
            jnp.array([1 + 2j], jnp.complex64),
            np.arange(4, dtype=np.uint8),
            jnp.array([True, False]),
            0.1,
            3,
            None,
            {"b": (jnp.ones(2), 2.0), "a": {"c": jnp.zeros(()), "empty": {}}},
            [jnp.ones(1), [], None],
            PerShot({"x": jnp.ones((7, 2)), "y": jnp.ones((7,), bool)}),
            (float("inf"), None),
            "größer",
        )
    )


@pytest.mark.parametrize("like", [False, True])
def test_fields_of_every_kind_come_back(tmp_path, like):
    model = everything()
    write(tmp_path / "a.h5", model)
    same(load(tmp_path / "a.h5", like=model if like else None), model)


def rename(path, old, new):
    """The file as if it had been written when the class `old` was called `new`."""
    with h5py.File(path, "r+") as file:
        text = file["outline"].asstr()[()]
        assert old in text
        del file["outline"]
        file["outline"] = text.replace(old, new)


def test_the_newest_class_of_a_name_is_taken(tmp_path):
    def make():  # a notebook's cell
        class Mine(AbstractDetector):
            gain: jax.Array

            def detect(self, wave, grid):
                return jnp.abs(wave[0]) ** 2

        return Mine

    write(tmp_path / "a.h5", thin(detector=make()(jnp.ones(()))))
    newest = make()  # it ran twice
    assert type(load(tmp_path / "a.h5").detector) is newest


def test_a_class_that_has_moved_is_found_and_a_lost_one_is_named(result):
    rename(result, "jaxptycho.parts.scan:FreeScan", "__main__:FreeScan")
    same(load(result), thin())
    rename(result, "__main__:FreeScan", "__main__:SpiralScan")
    with pytest.raises(
        ValueError,
        match=r"holds a SpiralScan of __main__; define or import class SpiralScan, or pass like=",
    ):
        load(result)
    same(load(result, like=thin()), thin())


def test_a_file_cannot_name_a_class_outside_the_package(result):
    rename(result, "jaxptycho.parts.scan:FreeScan", "subprocess:Popen")
    with pytest.raises(ValueError, match="define or import class Popen"):
        load(result)


def test_a_function_in_a_field_wants_like(tmp_path):
    class Bent(AbstractDetector):
        curve: object = eqx.field(static=True)
        gain: jax.Array

        def detect(self, wave, grid):
            return self.curve(self.gain * jnp.abs(wave[0]) ** 2)

    model = thin(detector=Bent(jnp.tanh, jnp.ones(())))
    write(tmp_path / "a.h5", model)
    with pytest.raises(
        ValueError, match=r"detector/curve was .*tanh, which a file cannot hold; pass like="
    ):
        load(tmp_path / "a.h5")
    same(load(tmp_path / "a.h5", like=model), model)


def test_a_class_that_has_changed_is_refused(result):
    rename(result, '"absorption"', '"opacity"')
    with h5py.File(result, "r+") as file:
        file["model/specimen/opacity"] = file["model/specimen/absorption"]
    with pytest.raises(
        ValueError,
        match=r"specimen holds a SliceStack with phase, opacity.*, the class now has phase, abs",
    ):
        load(result)


def test_like_of_another_shape_or_structure_is_refused(result):
    with pytest.raises(
        ValueError,
        match=r"/model/specimen/phase in .* has shape \(1, 32, 30\), expected \(3, 32, 30\)",
    ):
        load(result, like=MODELS["equal_slices"]())
    with pytest.raises(ValueError, match="has /model/specimen/absorption, unlike"):
        load(result, like=MODELS["phase_only"]())
    with pytest.raises(ValueError, match="lacks /model/propagator/angles"):
        load(result, like=MODELS["tilted"]())


OPTIMISERS = {
    "adam": optax.adam(1e-2),
    "half precision": optax.adam(1e-2, mu_dtype=jnp.bfloat16),
    "lbfgs": optax.lbfgs(),
    "schedule": optax.chain(
        optax.clip(1.0), optax.sgd(optax.cosine_decay_schedule(0.1, 10), momentum=0.9)
    ),
    "noise": optax.noisy_sgd(1e-2, key=jax.random.key(3)),
    "per part": per_part({"specimen": optax.adam(1e-2), "scan.positions": optax.adam(1e-3)}),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_states_of_optimisers_come_back(tmp_path, name):
    state = (
        init_state(OPTIMISERS[name], thin())
        if name != "noise"
        else OPTIMISERS[name].init(jnp.zeros(3))
    )
    state = jax.tree.map(lambda x: x + 1 if eqx.is_inexact_array(x) else x, state)
    save_state(tmp_path / "a.h5", {"state": state, "epoch": 7, "best": 0.5, "done": False})
    like = {
        "state": jax.tree.map(lambda x: x * 0 if eqx.is_inexact_array(x) else x, state),
        "epoch": 0,
        "best": 0.0,
        "done": True,
    }
    back = load_state(tmp_path / "a.h5", like)
    assert (back["epoch"], back["best"], back["done"]) == (7, 0.5, False)
    assert jax.tree.structure(back["state"]) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(back["state"]), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_results_and_states_are_told_apart(tmp_path, result):
    save_state(tmp_path / "state.h5", {"a": jnp.ones(2)})
    with pytest.raises(
        ValueError, match=r"state.h5 says it is 'jaxptycho-state' .* expected 'jaxptycho-result'"
    ):
        load(tmp_path / "state.h5")
    with pytest.raises(
        ValueError, match=r"result.h5 says it is 'jaxptycho-result' .* expected 'jaxptycho-state'"
    ):
        load_state(result, {"a": jnp.ones(2)})


def test_a_truncated_result_is_one_sentence(tmp_path, result):
    content = result.read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut.h5 cannot be read .* copy or write it again"):
        load(tmp_path / "cut.h5")


def test_an_existing_result_stays_unless_told(tmp_path, result):
    before = result.read_bytes()
    with pytest.raises(
        FileExistsError, match=r"result.h5 exists; choose another name or remove it first"
    ):
        write(result, thin())
    assert result.read_bytes() == before
    write(result, MODELS["multislice"](), overwrite=True)
    assert load(result).specimen.phase.shape[0] == 3
    assert list(tmp_path.iterdir()) == [result]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unable to flush")]
)
def test_a_full_disk_loses_nothing(tmp_path, result, monkeypatch, error):
    before = result.read_bytes()

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(
        OSError,
        match=r"result.h5 could not be written \(.*\), and nothing was overwritten; make room",
    ):
        write(result, thin(), overwrite=True)
    assert result.read_bytes() == before
    assert list(tmp_path.iterdir()) == [result]


def test_a_folder_that_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"could not be written \(No such file or directory\)"):
        write(tmp_path / "none" / "result.h5", thin())


def test_large_arrays_are_compressed(tmp_path):
    flat = jnp.zeros((1, 300, 300))
    write(tmp_path / "a.h5", thin(specimen=SliceStack(flat, None, 8.0, jnp.array(ORIGIN))))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["model/specimen/phase"].compression == "gzip"
        assert file["model/specimen/origin"].compression is None


def test_the_grid_comes_back_with_its_energy(tmp_path):
    for grid in (GRID, Grid((16, 12), (0.4, 0.5), wavelength=1.4)):
        write(tmp_path / "a.h5", thin(grid=grid), overwrite=True)
        assert load(tmp_path / "a.h5").grid == grid
