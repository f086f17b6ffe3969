import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import (
    DOSE,
    GRID,
    N_SHOTS,
    aberrated_probe,
    positions,
    rng,
    stack,
    thin,
    tilts,
    two_views,
)

from jaxptycho import (
    AberratedProbe,
    AffineScan,
    Background,
    Blurred,
    FreeScan,
    Gain,
    Masked,
    ModulationTransfer,
    NearField,
    PerShot,
    PerView,
    PixelProbe,
    RelaxedProbe,
    SliceStack,
    Tilted,
    predict,
    select,
)
from jaxptycho.parts.indexed import mask_unseen_updates, plain

pytestmark = pytest.mark.usefixtures("quick_to_compile")

predicted = eqx.filter_jit(predict)


def test_select_takes_one_entry_everywhere():
    tree = {
        "a": PerShot(jnp.arange(6.0).reshape(3, 2)),
        "b": 5.0,
        "c": [PerShot((jnp.arange(3), jnp.arange(3) * 2))],
    }
    picked = select(tree, PerShot, 1)
    np.testing.assert_array_equal(picked["a"], [2.0, 3.0])
    assert picked["b"] == 5.0
    assert [int(v) for v in picked["c"][0]] == [1, 2]


def test_select_of_one_kind_leaves_the_other():
    nested = PerView(PerShot(jnp.arange(12).reshape(2, 3, 2)))
    of_view = select(nested, PerView, 1)
    assert isinstance(of_view, PerShot)
    np.testing.assert_array_equal(select(of_view, PerShot, 2), [10, 11])
    assert isinstance(select(PerView(jnp.arange(2)), PerShot, 0), PerView)
    np.testing.assert_array_equal(plain(nested), nested.values.values)


def test_select_works_on_traced_indices():
    values = PerShot(jnp.arange(5.0) ** 2)
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(lambda i: select(values, PerShot, i)))(jnp.array([4, 0])), [16.0, 0.0]
    )


def test_only_shots_of_the_batch_are_seen():
    updates = {"shot": PerShot(jnp.ones((5, 2))), "shared": jnp.ones(3)}
    seen = mask_unseen_updates(
        updates, 0, jnp.array([1, 3, 4]), jnp.array([1.0, 1.0, 0.0])
    )  # shot 4 pads
    np.testing.assert_array_equal(
        seen["shot"].values, np.array([0, 1, 0, 1, 0])[:, None] * np.ones(2)
    )
    np.testing.assert_array_equal(seen["shared"], 1.0)


def test_padding_with_a_seen_shot_does_not_hide_it():
    seen = mask_unseen_updates(PerShot(jnp.ones(3)), 0, jnp.array([1, 1]), jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(seen.values, [0, 1, 0])


def test_only_the_view_of_the_batch_is_seen():
    updates = {"tilt": PerView(jnp.ones((2, 3))), "scan": PerView(PerShot(jnp.ones((2, 4, 2))))}
    seen = mask_unseen_updates(updates, jnp.array(1), jnp.array([0, 2]), jnp.ones(2))
    np.testing.assert_array_equal(seen["tilt"].values, [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(seen["scan"].values.values[0], 0.0)
    np.testing.assert_array_equal(seen["scan"].values.values[1, :, 0], [1, 0, 1, 0])


def test_views_resolve_to_their_own_entries():
    model, shots = two_views(), jnp.arange(3)
    for view in jnp.arange(2):
        alone = select(model, PerView, view)
        np.testing.assert_allclose(
            predicted(model, shots, view), predicted(alone, shots), rtol=1e-12
        )
    assert not np.allclose(*(predicted(model, shots, view) for view in jnp.arange(2)), rtol=0.1)


def same(value, kind=PerShot):
    return kind(jnp.broadcast_to(jnp.asarray(value), (N_SHOTS, *jnp.shape(value))))


def varied(part, *fields):
    """`part` with every one of `fields` given to each shot."""
    for field in fields:
        part = eqx.tree_at(
            lambda p, f=field: getattr(p, f),
            part,
            same(getattr(part, field)),
            is_leaf=lambda n: n is None,
        )
    return part


def varying_parts():
    """Models whose every varying field is PerShot with equal values, beside the plain ones."""
    scan = AffineScan(
        positions()[0], jnp.eye(2) * 1.02, jnp.array([0.1, 0.2]), jnp.zeros(2), jnp.ones(2)
    )
    basis = jnp.stack([thin().probe.waves, 0.5 * thin().probe.waves])
    yield "PixelProbe", {"probe": thin().probe}, ["waves"]
    yield (
        "RelaxedProbe",
        {"probe": RelaxedProbe(basis, jnp.array([0.8, 0.3]))},
        ["waves", "coefficients"],
    )
    yield "AberratedProbe", {"probe": aberrated_probe()}, ["semiangle", "dose", "centre"]
    yield "SliceStack", {"specimen": stack(2, jnp.array([3.0, 5.0]))}, ["thickness", "origin"]
    yield "FreeScan", {"scan": FreeScan(positions()[0])}, ["positions"]
    yield "AffineScan", {"scan": scan}, ["nominal", "matrix", "shift", "residual", "pivot"]
    yield "Tilted", {"propagator": Tilted(tilts()[0]), "specimen": stack(2)}, ["angles"]
    yield "NearField", {"detector": NearField(jnp.array(20.0))}, ["distance"]
    yield "Gain", {"detector": Gain(jnp.array(1.3))}, ["factor"]
    yield "Background", {"detector": Background(jnp.array(0.2))}, ["counts"]
    yield "Blurred", {"detector": Blurred(jnp.array(0.6))}, ["sigma"]
    yield "ModulationTransfer", {"detector": ModulationTransfer(jnp.array([1.0, 0.5]))}, ["mtf"]
    yield (
        "Masked",
        {"detector": Masked(jnp.asarray(rng().uniform(size=GRID.shape) > 0.3))},
        ["mask"],
    )


@pytest.mark.parametrize(
    ("parts", "fields"), [pytest.param(p, f, id=name) for name, p, f in varying_parts()]
)
def test_equal_values_per_shot_are_a_shared_value(parts, fields):
    name = next(iter(parts))
    shots = jnp.array([0, 5])
    scan = {} if name == "scan" else {"scan": FreeScan(PerShot(positions()))}
    shared = thin(**{**scan, **parts})
    each = eqx.tree_at(lambda m: getattr(m, name), shared, varied(parts[name], *fields))
    assert any(
        isinstance(n, PerShot)
        for n in jax.tree.leaves(getattr(each, name), is_leaf=lambda n: isinstance(n, PerShot))
    )
    both = eqx.filter_jit(lambda a, b: (predict(a, shots), predict(b, shots)))(shared, each)
    np.testing.assert_allclose(*both, rtol=1e-10, atol=1e-10)


def test_every_shot_gets_its_own_aberration():
    defocus = jnp.linspace(-100.0, 100.0, N_SHOTS)
    model = thin(probe=AberratedProbe(0.03, {"C10": PerShot(-defocus)}, DOSE))
    together = predicted(model, jnp.array([1, 4]))
    for n, shot in enumerate((1, 4)):
        alone = thin(probe=AberratedProbe(0.03, {"defocus": float(defocus[shot])}, DOSE))
        np.testing.assert_allclose(
            together[n], predicted(alone, jnp.array([shot]))[0], rtol=1e-9, atol=1e-9
        )


def test_every_part_says_which_types_it_takes():
    with pytest.raises(Exception, match="thickness"):
        SliceStack(jnp.zeros((1, 4, 4)), None, "thick", (0.0, 0.0))
    with pytest.raises(Exception, match="waves"):
        PixelProbe(jnp.zeros((4, 4)))
