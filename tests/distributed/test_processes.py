"""How processes find one another; what they do together is tested with real ones in app/test_survival.py."""

import jax
import numpy as np
import pytest

from jaxptycho.data import Batch
from jaxptycho.distributed import multihost as processes
from jaxptycho.distributed.sharding import mesh

SLURM = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
ONE_A_NODE = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPICH = {"PMI_SIZE": "2", "PMI_RANK": "0", "MPI_LOCALNRANKS": "2"}


@pytest.fixture
def joined(monkeypatch):
    """What JAX is told, in an environment without any launcher."""
    told = {}

    def initialize(coordinator, count, rank, **more):
        told.update(coordinator=coordinator, count=count, rank=rank, **more)

    for names in processes.LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    return told


def enter(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_one_process_joins_nobody(joined, monkeypatch):
    assert processes.join() == 1
    enter(monkeypatch, {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
    assert processes.join() == 1
    assert joined == {}


@pytest.mark.parametrize(
    ("environment", "count", "rank"), [(SLURM, 8, 5), (OPEN_MPI, 2, 1), (MPICH, 2, 0)]
)
def test_launchers_say_who_is_who(joined, monkeypatch, environment, count, rank):
    enter(monkeypatch, environment)
    assert processes.join() == count
    assert (joined["count"], joined["rank"], joined["local_device_ids"]) == (count, rank, None)
    assert joined["heartbeat_timeout_seconds"] < 60
    here = joined["coordinator"]
    assert (
        here is None if environment is SLURM else here.startswith("127.0.0.1:")
    )  # JAX knows Slurm's hosts


@pytest.mark.parametrize(
    ("launcher", "visible", "taken"),
    [(ONE_A_NODE, "0,1,2,3", [0, 1, 2, 3]), (SLURM, "2", [0]), (SLURM, "0,1,2,3", None)],
)
def test_a_process_takes_all_devices_that_nobody_else_has(
    joined, monkeypatch, launcher, visible, taken
):
    enter(monkeypatch, launcher | {"CUDA_VISIBLE_DEVICES": visible})
    processes.join()
    ids = joined["local_device_ids"]
    assert taken == (ids if ids is None else list(ids))  # None: JAX gives each its own


def test_what_is_given_goes_before_what_the_launcher_says(joined, monkeypatch):
    enter(monkeypatch, SLURM)
    assert processes.join("host0:1234", 3, 2) == 3
    assert (joined["coordinator"], joined["count"], joined["rank"]) == ("host0:1234", 3, 2)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (("host:1", None, None), "came without more"),
        (("host:1", 2, None), "process None of 2"),
        (("host:1", 2, 2), "rank from 0"),
    ],
)
def test_half_an_answer_is_refused(joined, given, match):
    with pytest.raises(ValueError, match=match):
        processes.join(*given)


def test_nobody_knows_the_coordinator(joined, monkeypatch):
    def initialize(*args, **more):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match="set JAX_COORDINATOR_ADDRESS"):
        processes.join(None, 2, 1)


def test_a_process_by_itself_agrees_with_itself():
    batch = Batch(np.int32(0), np.arange(4), np.ones((4, 2, 2)), np.ones(4, np.float32))
    assert processes.global_batch(batch, mesh(1)) is batch
    assert processes.all_processes(True)
    assert not processes.all_processes(False)
    assert processes.run_on_rank0(lambda: 3) == 3
    with pytest.raises(KeyError):
        processes.run_on_rank0(lambda: {}["nothing"])
    assert processes.agreed(lambda: "Ctrl-C")() == "Ctrl-C"
    assert processes.part() == (0, 1)
    assert processes.first()


def test_sums_over_processes_are_gathered_block_by_block(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(processes, "AT_ONCE", 48)
    gathered = []

    def of_three(mine):
        gathered.append(len(mine))
        return [mine] * 3

    monkeypatch.setattr(processes, "_of_all", of_three)
    mine = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_array_equal(processes.allreduce_sum(mine), np.sum([mine] * 3, 0))
    assert max(gathered) <= 48
    assert sum(gathered) == mine.nbytes
