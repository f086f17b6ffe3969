import jax
import numpy as np
import optax
import pytest
from models import GRID, any_batch, stack, thin

from jaxptycho import init_state, mesh, misfit, per_part, poisson
from jaxptycho.distributed.memory_plan import plan, traffic
from jaxptycho.distributed.sharding import place_on_mesh
from jaxptycho.distributed.slabs import layout as slabs
from jaxptycho.distributed.slabs.batching import arrange

PROGRAM = """
  %a = f32[2,3]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%sum
  %b = (f32[], c64[4]{0}) all-reduce(%y, %z), replica_groups=[2,4]<=[8], to_apply=%sum
  %c = f32[9]{0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%sum
  %d = f32[9]{0} all-reduce(%x), replica_groups=[8,1]<=[8], to_apply=%sum
  %e = (c64[5]{0}, c64[5]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}
  %f = c64[5]{0} collective-permute-done(%e)
"""


def test_traffic_counts_what_comes_from_other_devices():
    assert traffic(PROGRAM) == {"all-reduce": 24 + 4 + 32, "collective-permute": 40}


def test_plan_says_what_lies_where(quick_to_compile):
    model, devices = thin(specimen=stack(2)), mesh(8, 4)
    batch = any_batch(model)
    batch = arrange(batch, slabs.homes(model, 0, 4), devices)
    state = init_state(per_part(specimen=optax.adam(1e-2)), model)
    found = plan(misfit(poisson), model, state, batch, devices)
    lying = place_on_mesh(model, devices), place_on_mesh(state, devices, model)
    held = sum(
        a.addressable_shards[0].data.nbytes
        for a in jax.tree.leaves(lying)
        if isinstance(a, jax.Array)
    )
    numbers = sum(a.nbytes for a in jax.tree.leaves(model) if isinstance(a, np.ndarray))
    assert found.specimen + found.others + found.state == held + numbers
    assert found.batch == sum(a.nbytes for a in (batch.counts, batch.shots, batch.weight)) // 8
    edge = 16 * 2 * 30 * slabs.halo(GRID)  # bytes of a halo of two slices
    assert found.sent["collective-permute"] == 2 * 2 * edge  # both sides, forth and back
    assert set(found.sent) == {"all-reduce", "collective-permute"}
    assert found.halo_share == pytest.approx(24 / 32)
    assert found.table()["halo"] == "12 rows on either side, 75 % of a device's transmissions"
    alone = plan(misfit(poisson), model, state, any_batch(model, range(4)), mesh(1))
    assert alone.sent == {}
    assert alone.table()["sent in a step"] == "nothing"
