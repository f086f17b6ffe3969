import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxptycho.distributed import reduce as sums
from jaxptycho.distributed.sharding import mesh

AXES = ("shots", "slabs")


@pytest.mark.parametrize("small", [0, 5, 2**17])
def test_arrays_are_summed_along_the_axes_that_their_specs_leave(monkeypatch, small):
    """Whichever of them travel together; every device adds its own number to all entries."""
    monkeypatch.setattr(sums, "SMALL", small)
    devices = mesh(8, 2)
    tree = {
        "real": jnp.arange(4.0),
        "wave": jnp.array([[1 + 2j, 3 - 1j, 0.5j]]),
        "low": jnp.float32(0.25),
    }
    tree |= {"rows": jnp.arange(12.0).reshape(2, 6), "none": None}
    specs = {"real": P(), "wave": P(), "low": P(), "rows": P(None, "slabs"), "none": None}

    def own(tree):
        number = 2 * jax.lax.axis_index("shots") + jax.lax.axis_index("slabs")
        return sums.psum_packed(
            jax.tree.map(lambda a: a + number.astype(a.dtype), tree), specs, AXES
        )

    summed = jax.jit(jax.shard_map(own, mesh=devices, in_specs=(specs,), out_specs=specs))(tree)
    for name in ("real", "wave", "low"):
        np.testing.assert_allclose(summed[name], 8 * tree[name] + sum(range(8)), rtol=1e-14)
        assert summed[name].dtype == tree[name].dtype
    slab = np.repeat([0, 1], 3)  # over the four groups of shots alone
    np.testing.assert_allclose(
        summed["rows"], 4 * tree["rows"] + 2 * sum(range(4)) + 4 * slab, rtol=1e-14
    )
