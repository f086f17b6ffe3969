"""A model that lies in pieces is written as one that lies on one device, a piece at a time."""

from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import ORIGIN, absorptions, phases, stack, thin
from pairs import pair

from jaxptycho import SliceStack, load, mesh, write
from jaxptycho.distributed.gather import ShardedLeaf, gather_leaves, on_process_zero
from jaxptycho.distributed.sharding import place_on_mesh

WIDE = (256, 90)  # rows and columns: large enough to be compressed in several chunks


def model():
    return thin(specimen=SliceStack(phases(3, WIDE), absorptions(3, WIDE), 8.0, jnp.array(ORIGIN)))


def content(path):
    """All that a file says: every array with its type and how it is stored, and the attributes;
    without the picture for viewers, which a specimen that is spread over devices has not.
    """
    found = {}
    with h5py.File(path) as file:

        def look(name, item):
            if isinstance(item, h5py.Dataset) and not name.startswith("entry/"):
                found[name] = (
                    item.dtype,
                    item.chunks,
                    item.compression,
                    np.asarray(item[()]).tobytes(),
                )

        file.visititems(look)
        own = {"default", "date", "devices"}
        return found | {name: str(v) for name, v in file.attrs.items() if name not in own}


@pytest.mark.parametrize("slabs", [8, 4])
def test_eight_devices_write_the_file_of_one(tmp_path, slabs):
    one = model()
    write(tmp_path / "one.h5", one, [1.0, 0.5])
    split, sizes = place_on_mesh(one, mesh(8, slabs)), []

    def written(given):
        phase = given.specimen.phase
        assert isinstance(phase, ShardedLeaf)
        assert isinstance(given.probe.waves, jax.Array)  # the same on every device
        phase.pieces = (
            sizes.append(piece.shape) or (place, piece) for place, piece in phase.pieces
        )
        write(tmp_path / "many.h5", given, [1.0, 0.5])

    on_process_zero(written, split)
    assert sizes == [(3, WIDE[0] // slabs, WIDE[1])] * slabs  # never more than a slab, each once
    assert content(tmp_path / "many.h5") == content(tmp_path / "one.h5")
    np.testing.assert_array_equal(load(tmp_path / "many.h5").specimen.phase, one.specimen.phase)


def test_pieces_make_the_whole_in_the_order_of_the_tree():
    split = place_on_mesh(thin(specimen=stack(2)), mesh(4, 4))
    found = on_process_zero(lambda given: gather_leaves(given).specimen, split)
    assert isinstance(found.phase, jax.Array)
    np.testing.assert_array_equal(found.phase, split.specimen.phase)
    np.testing.assert_array_equal(found.absorption, split.specimen.absorption)
    assert (
        on_process_zero(lambda given: given.grid.shape, split) == split.grid.shape
    )  # nothing has to be asked for


TWO = """
sys.path[:0] = sys.argv[2:4]
import numpy as np
from pathlib import Path
from test_pieces import model
from jaxptycho import mesh, write
from jaxptycho.distributed.gather import on_process_zero
from jaxptycho.distributed.sharding import place_on_mesh
split = place_on_mesh(model(), mesh(4, 4))
on_process_zero(lambda given: write(Path(sys.argv[4]), given, [1.0, 0.5]), split)
def full(given):
    next(given.specimen.phase.pieces)
    raise OSError("the disk is full")
try:
    on_process_zero(full, split)
except OSError as error:
    print(error)
"""


def test_two_processes_write_the_file_of_one(tmp_path):
    """Also: what the first fails at in the midst stops both, and none waits."""
    here = Path(__file__).parent
    write(tmp_path / "one.h5", model(), [1.0, 0.5])
    said = pair(
        TWO, here, here.parent / "helpers", tmp_path / "two.h5", devices=2, JAX_ENABLE_X64=1
    )
    assert content(tmp_path / "two.h5") == content(tmp_path / "one.h5")
    assert [out.splitlines()[-1] for out in said] == [
        "the disk is full",
        "process 0 has failed; its message says why",
    ]
