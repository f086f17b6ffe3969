"""Checkpoints come back as they were, elsewhere if wished; what is damaged is passed over."""

import os
import shutil
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import v1 as orbax
from pairs import pair

from jaxptycho.distributed import checkpoint
from jaxptycho.distributed.checkpoint import Checkpoints
from jaxptycho.distributed.sharding import SHOTS, mesh


class Part(eqx.Module):
    waves: jax.Array
    weight: float
    form: str = "any"


def placed(array, devices, *spec):
    return jax.device_put(array, jax.sharding.NamedSharding(mesh(devices), P(*spec)))


def tree(devices=1, seed=0):
    """A tree of every kind of leaf, whose large array lies on `devices`."""
    rng = np.random.default_rng(seed)
    waves = placed(
        (rng.normal(size=(8, 3, 5)) + 1j * rng.normal(size=(8, 3, 5))).astype(np.complex64),
        devices,
        SHOTS,
    )
    part = Part(waves, float(rng.normal()))
    state = optax.adam(1e-3).init({"phase": placed(rng.normal(size=6).astype(np.float32), devices)})
    numbers = {
        "count": 3 + seed,
        "rate": np.float32(0.1),
        "done": bool(seed),
        "table": rng.normal(size=4),
    }
    return {
        "part": part,
        "state": state,
        "key": placed(jax.random.key(seed), devices),
        "double": placed(rng.normal(size=3), devices),
        "half": placed(jnp.asarray([0.1, 3.0], jnp.bfloat16), devices),
        "mask": placed(rng.random(5) > 0.5, devices),
        "empty": jnp.zeros((0, 2)),
        "step": optax.adam,
    } | numbers


def leaves(of):
    arrays = (leaf for leaf in jax.tree.leaves(of) if isinstance(leaf, checkpoint.NUMBERS))
    return [np.asarray(jax.random.key_data(a) if checkpoint._is_key(a) else a) for a in arrays]


def same(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(leaves(one), leaves(other), strict=True)
    )


def test_every_leaf_comes_back_on_another_number_of_devices(tmp_path):
    wanted, about = tree(4, seed=1), {"epoch": 2, "loss": 0.1, "held_out": None, "stage": "erste"}
    with Checkpoints(tmp_path / "c") as kept:
        kept.save(7, wanted, about)
    found, said = Checkpoints(tmp_path / "c").last(lambda about: tree(2))
    assert said == about
    assert same(found, wanted)
    assert [type(found[n]) for n in ("count", "rate", "done")] == [int, np.float32, bool]
    assert found["part"].waves.sharding == tree(2)["part"].waves.sharding
    assert found["step"] is optax.adam


def test_the_last_ones_are_kept_and_an_array_may_be_overwritten_while_it_is_saved(tmp_path):
    double = jax.jit(lambda x: 2 * x, donate_argnums=0)
    x = double(jnp.ones((64, 128, 128)))
    with Checkpoints(tmp_path, kept=3) as kept:
        for number in range(5):
            kept.save(number, {"x": x})
            kept.save(number, {"x": 0 * x})  # there already
            x = double(x)
    assert Checkpoints(tmp_path).numbers() == [4, 3, 2]
    found, _ = Checkpoints(tmp_path).last(lambda about: {"x": jnp.zeros((64, 128, 128))})
    np.testing.assert_array_equal(found["x"], 2.0**5)


def test_nothing_is_there_at_first(tmp_path):
    assert Checkpoints(tmp_path / "none").last(lambda about: {}) is None


@pytest.fixture
def two(tmp_path):
    """A folder of two checkpoints of the same shape."""
    with Checkpoints(tmp_path / "c") as kept:
        for seed in (0, 1):
            kept.save(seed, tree(seed=seed), seed)
    return tmp_path / "c"


@pytest.mark.parametrize("harm", ["halved", "emptied", "gone"])
def test_a_damaged_newest_is_passed_over_for_the_one_before(two, harm):
    largest = max(
        (p for p in (two / "1").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    largest.unlink() if harm == "gone" else os.truncate(
        largest, largest.stat().st_size // 2 * (harm == "halved")
    )
    with pytest.warns(
        UserWarning, match=r"checkpoint 1 in .* cannot be read \(.+\); the one before it is taken"
    ):
        found, about = Checkpoints(two).last(lambda about: tree())
    assert about == 0
    assert same(found, tree())
    with Checkpoints(two) as kept:  # its number is free again
        kept.save(1, tree(seed=1), "again")
    assert Checkpoints(two).last(lambda about: tree())[1] == "again"


def test_one_bit_changed_on_the_disk_is_noticed(tmp_path):
    noise = (
        np.random.default_rng(0).integers(-(2**31), 2**31, (2, 5000)).astype(np.int32)
    )  # does not compress
    with Checkpoints(tmp_path) as kept:
        for number, x in enumerate(jnp.asarray(noise)):
            kept.save(number, {"x": x})
    largest = max(
        (p for p in (tmp_path / "1").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x10
    largest.write_bytes(content)
    with pytest.warns(UserWarning, match=r"cannot be read \(x has changed\)"):
        found, _ = Checkpoints(tmp_path).last(lambda about: {"x": jnp.zeros(5000, jnp.int32)})
    np.testing.assert_array_equal(found["x"], noise[0])


def test_a_word_changed_in_what_is_said_about_it_is_noticed(two):
    path = two / "1" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('\\"about\\": 1', '\\"about\\": 2'))
    with pytest.warns(UserWarning, match="its attributes have changed"):
        assert Checkpoints(two).last(lambda about: tree())[1] == 0


def test_an_unfinished_one_does_not_count(two):
    shutil.copytree(two / "1", two / "2.orbax-checkpoint-tmp")
    assert Checkpoints(two).last(lambda about: tree())[1] == 1
    with Checkpoints(two) as kept:
        kept.save(5, tree())
    assert not list(two.glob("*tmp*"))


def test_another_structure_is_an_error_and_no_fresh_start(two):
    other = tree()
    other["part"] = Part(placed(np.zeros((4, 4), np.float32), 1), 1.0)
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(
            ValueError, match=r"part/waves is complex64\[8, 3, 5\] in it, expected float32\[4, 4\]"
        ),
    ):
        Checkpoints(two).last(lambda about: other)


def test_what_only_failed_to_be_read_is_not_given_up(two, monkeypatch):
    """A program without memory, or that changed: the next one finds all checkpoints as they were."""

    def full(*args, **more):
        raise MemoryError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(orbax, "load", full)
        with (
            pytest.warns(UserWarning, match="cannot be read"),
            pytest.raises(ValueError, match=r"no checkpoint in .* can be read \(out of memory\)"),
        ):
            Checkpoints(two).last(lambda about: tree())
    assert Checkpoints(two).numbers() == [1, 0]
    assert Checkpoints(two).last(lambda about: tree())[1] == 1


def test_checkpoints_given_up_are_no_fresh_start(two):
    for number in ("0", "1"):
        (two / number).rename(two / f"{number}.unreadable")
    with pytest.raises(ValueError, match=r"1\.unreadable is all that is left"):
        Checkpoints(two).last(lambda about: tree())


DAMAGED = """
import os, pathlib, time, warnings
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxptycho.distributed.checkpoint import Checkpoints
from jaxptycho.distributed.sharding import SHOTS, mesh
from jaxptycho.distributed.multihost import first, run_on_rank0
folder, where = pathlib.Path(sys.argv[2]), NamedSharding(mesh(), P(SHOTS))
def tree(by):
    return {"x": jax.make_array_from_callback((8, 4000), where, lambda index: by * np.arange(32000.0).reshape(8, 4000)[index])}
with Checkpoints(folder) as kept:
    for number in (0, 1):
        kept.save(number, tree(number + 1), number)
def harm():
    largest = max((p for p in (folder / "1").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
run_on_rank0(harm)
began = time.monotonic()
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    found, about = Checkpoints(folder).last(lambda about: tree(0))
shard = found["x"].addressable_shards[0]
assert about == 0 and (np.asarray(shard.data) == np.arange(32000.0).reshape(8, 4000)[shard.index]).all()
assert time.monotonic() - began < 20
print(len(heard), sorted(p.name for p in folder.iterdir()))
"""


def test_two_processes_pass_over_a_damaged_newest_at_once(tmp_path):
    """Only the first process reads all; the other one may not wait for it inside orbax, and both take the same."""
    for said in pair("import numpy as np\n" + DAMAGED, tmp_path / "c"):
        assert said.splitlines()[-1] == "1 ['0', '1.unreadable']", said


FULL = """
import resource, sys, pathlib
import jax.numpy as jnp
from jaxptycho.distributed.checkpoint import Checkpoints
folder = pathlib.Path(sys.argv[1])
with Checkpoints(folder) as kept:
    kept.save(0, {"x": jnp.arange(100_000.0)}, "small")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk that is full
try:
    with Checkpoints(folder) as kept:
        kept.save(1, {"x": jnp.sin(jnp.arange(100_000.0))}, "large")
except OSError as error:
    print(error)
x, about = Checkpoints(folder).last(lambda about: {"x": jnp.zeros(100_000)})
print(about, float(x["x"][-1]))
"""


def test_a_full_disk_loses_nothing_earlier(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert "earlier ones are kept" in run.stdout, run.stderr
    assert run.stdout.splitlines()[-1] == "small 99999.0"


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "int16", "bool", "bfloat16"])
def test_a_checksum_sees_one_bit_and_an_exchange_and_no_device(dtype):
    values = jnp.asarray(
        np.random.default_rng(0).normal(size=(8, 6)) > 0
        if dtype == "bool"
        else np.random.default_rng(0).normal(size=(8, 6)) * 100
    ).astype(dtype)
    total = checkpoint._checksums({"a": values})
    assert total == checkpoint._checksums({"a": placed(values, 8, SHOTS)})
    changed = values.at[3, 4].set(~values[3, 4] if dtype == "bool" else values[3, 4] + 1)
    assert total != checkpoint._checksums({"a": changed})
    assert total != checkpoint._checksums({"a": values[::-1]})
