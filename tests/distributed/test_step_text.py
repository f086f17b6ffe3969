"""What the compiled step of many devices does, read off its text: the whole of it, with optimiser and penalty."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models import (
    GRID,
    ORIGIN,
    TRANSFORM,
    any_batch,
    phases,
    pixel_probe,
    positions,
    rng,
    stack,
    thin,
)

from jaxptycho import (
    FreeScan,
    PerShot,
    PerView,
    SliceStack,
    Volume,
    distribute,
    init_state,
    make_step,
    mesh,
    misfit,
    per_part,
    poisson,
)
from jaxptycho.distributed.memory_plan import traffic
from jaxptycho.distributed.sharding import even, place_on_mesh
from jaxptycho.distributed.slabs.layout import halo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SHOTS, MODES = 16, 2
TALL = (768, 30)  # pixels


def many_shots(**parts):
    scan = FreeScan(PerShot(positions(n=SHOTS)))
    return thin(
        **{"scan": scan, "specimen": stack(2, jnp.array(8.0)), "probe": pixel_probe(MODES)} | parts
    )


def tall(turned):
    """A specimen much taller than its halo, as slices or as a volume."""
    if not turned:
        scan = FreeScan(PerShot(positions(n=SHOTS, field=TALL)))
        return many_shots(
            scan=scan, specimen=SliceStack(phases(2, TALL), None, jnp.array(8.0), jnp.array(ORIGIN))
        )
    middle = jnp.array([n // 2 * p for n, p in zip(TALL, GRID.pixel, strict=True)])
    places = positions(n=SHOTS, field=TALL) - jnp.array(ORIGIN) - middle
    values = jnp.asarray(rng(5).uniform(0, 20, (6, *TALL)))
    turning = Volume(values, (0.5, *GRID.pixel), PerView(jnp.array([0.3, -0.7])), 3)
    return many_shots(
        specimen=turning, scan=FreeScan(PerView(PerShot(jnp.stack([places, places]))))
    )


def volume():
    values = jnp.asarray(rng(5).uniform(0, 20, (6, 32, 30)))
    places = positions(n=SHOTS) - jnp.array([4.0, 8.0])
    turned = Volume(values, (0.5, *GRID.pixel), PerView(jnp.array([0.3, -0.7])), 3)
    return many_shots(specimen=turned, scan=FreeScan(PerView(PerShot(jnp.stack([places, places])))))


EVERY = per_part(specimen=optax.adam(1e-3), probe=optax.adam(1e-3), scan=optax.sgd(1e-3))


def program(model, devices, optimiser=EVERY, slabs=1):
    """The step of `reconstruct`, compiled for a mesh."""
    on = mesh(devices, slabs)
    batch = even(any_batch(model, np.arange(SHOTS)), on)
    state = init_state(optimiser, model)
    step = jax.jit(make_step(distribute(misfit(poisson), on), optimiser))
    where = jax.sharding.NamedSharding(on, jax.P(on.axis_names))
    batch = jax.tree.map(lambda a: jax.device_put(a, where) if np.ndim(a) else a, batch)
    return step.lower(place_on_mesh(model, on), place_on_mesh(state, on, model), batch).compile()


def computations(text: str) -> dict[str, str]:
    """The text of every computation of a program by its name."""
    return {
        m[1]: m[0]
        for m in re.finditer(r"^(?:ENTRY )?%?([\w.\-]+) .*?\{\n.*?^\}", text, re.M | re.S)
    }


@pytest.mark.parametrize("made", [many_shots, volume], ids=["multislice", "volume"])
def test_a_step_gathers_nothing_transforms_its_own_shots_and_reduces_once(made):
    text = program(made(), 8).as_text()
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    large = SHOTS // 8 * MODES * math.prod(GRID.shape)
    found = TRANSFORM.findall(text)
    assert found
    assert max(math.prod(map(int, dims.split(","))) for dims in found) <= large
    reducing = [
        name
        for name, body in computations(text).items()
        if re.search(r" all-reduce(-start)?\(", body)
    ]
    bodies = set(re.findall(r"(?:body|condition)=%?([\w.\-]+)", text))
    assert reducing
    assert not bodies & set(reducing)  # no loop waits for other devices
    model = made()
    params = sum(leaf.nbytes for leaf in jax.tree.leaves((model.specimen, model.probe, model.scan)))
    assert traffic(text)["all-reduce"] <= 1.05 * params + 256  # each gradient once, and the loss


@pytest.mark.parametrize(
    ("made", "slabs"), [(many_shots, 8), (volume, 4)], ids=["multislice", "volume"]
)
def test_a_step_in_slabs_hands_on_halos_and_gathers_nothing(made, slabs):
    text = program(made(), 8, slabs=slabs).as_text()
    assert not re.search(r"all-gather|all-to-all", text)
    assert re.search(r"collective-permute", text)
    found = [math.prod(map(int, dims.split(","))) for dims in TRANSFORM.findall(text)]
    assert found
    assert max(found) <= SHOTS // 8 * MODES * math.prod(GRID.shape)


def test_devices_wait_for_each_other_once_a_step():
    """Loss and gradients of what is moved are one vector; of positions, which stay put, nobody asks anything."""
    model = many_shots()
    moved = per_part(specimen=optax.adam(1e-3), probe=optax.adam(1e-3))
    text = program(model, 8, moved).as_text()
    assert len(re.findall(r" all-reduce(?:-start)?\(", text)) == 1
    params = sum(
        leaf.nbytes
        for leaf in jax.tree.leaves((model.specimen.phase, model.specimen.absorption, model.probe))
    )
    assert traffic(text)["all-reduce"] == params + 2 * 8  # loss and weight


def test_bytes_of_a_device_fall_with_shots_and_with_slabs():
    """Waves and patterns of the whole step as 1/N with the shots; what lies on a device is measured."""
    sizes = {}
    for n in (1, 8):
        batch = even(any_batch(many_shots(), np.arange(SHOTS)), mesh(n))
        counts = jax.device_put(batch.counts, jax.sharding.NamedSharding(mesh(n), jax.P("shots")))
        sizes[n] = counts.addressable_shards[0].data.nbytes
    assert sizes[8] * 8 == sizes[1]
    held = {}
    model = thin(specimen=stack(2))
    state = init_state(per_part(specimen=optax.adam(1e-3)), model)
    for n in (1, 2, 4, 8):
        on = mesh(n, n)
        lying = jax.tree.leaves((place_on_mesh(model, on), place_on_mesh(state, on, model)))
        held[n] = sum(
            a.addressable_shards[0].data.nbytes for a in lying if isinstance(a, jax.Array)
        )
    split = sum(
        3 * a.nbytes for a in (model.specimen.phase, model.specimen.absorption)
    )  # with Adam's two moments
    for n in (2, 4, 8):
        assert held[1] - held[n] == split - split // n


@pytest.mark.slow
@pytest.mark.parametrize(("turned", "spare"), [(False, 1.1), (True, 1.3)])
def test_a_whole_step_takes_an_nth_of_the_memory_up_to_the_halo(turned, spare):
    """Of what the compiled program says it holds: model, optimiser and patterns, and all that it computes between;
    `spare` is for the waves of a device's own shots."""
    sizes, rows = {}, TALL[0]
    for n in (1, 2, 4, 8):
        memory = program(tall(turned), n, slabs=n).memory_analysis()
        sizes[n] = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        sizes[n] += memory.output_size_in_bytes * (
            memory.alias_size_in_bytes == 0
        )  # given back where it was taken
    for n in (2, 4, 8):
        held = rows / n + 2 * halo(GRID)
        assert sizes[n] <= spare * sizes[1] * held / rows
    assert sizes[8] < sizes[1] / 5
