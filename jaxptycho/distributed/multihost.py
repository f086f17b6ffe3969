"""Communication of many processes: discovery, agreement, and distribution of the batches.

Each runs the same program on its devices; arrays of a mesh over all devices are parts of one array.
So every process must reach the same computations in the same order: tasks of one process go through
`run_on_rank0`, decisions of one through `all_processes`.
"""

import itertools
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..data import Batch, ProcessShard

T = TypeVar("T")
HEARTBEAT_SECONDS = 20  # after so long without a sign of life the others stop
EVERY = 8  # batches between two checks for a request to stop
AT_ONCE = 2**24  # bytes of every process that all gather at a time
GATHERINGS = itertools.count()  # a name for each, the same in all processes
# how launchers call the number of processes, the rank, and the processes on this host
LAUNCHERS = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
)


def join(coordinator: str | None = None, count: int | None = None, rank: int | None = None) -> int:
    """Start the processes of a run and return their number: as given, or from srun or mpirun.

    One otherwise. `coordinator` is the address (host:port) of process 0. To be called before JAX
    computes anything.
    """
    env = os.environ
    local = None
    for total, own, here in LAUNCHERS:
        if count is None and rank is None and total in env and own in env:
            count = int(env[total])
            rank = int(env[own])
            local = env.get(here)
    if count is None and rank is None:
        if coordinator is not None:
            raise ValueError(
                f"the coordinator {coordinator} came without more; give the number of processes "
                "and the rank too"
            )
        return 1
    if count is None or rank is None or not 0 <= rank < count:
        raise ValueError(
            f"process {rank} of {count}; give the number of processes and a rank from 0 to less "
            "than it"
        )
    if count == 1:
        return 1
    if coordinator is None and local == str(count):  # all on this host, started by the same parent
        coordinator = f"127.0.0.1:{2**15 + os.getppid() % 2**14}"
    gpus = [name for name in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    mine = len(gpus) == 1 or (local or "").split("(")[0] == "1"  # no device of another process here
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            rank,
            local_device_ids=range(len(gpus))
            if gpus and mine
            else None,  # JAX would use that of the local rank
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise ValueError(
            f"process {rank} of {count} does not know where process 0 is ({error}); set "
            "JAX_COORDINATOR_ADDRESS to its host:port"
        ) from error
    return count


@contextmanager
def none_left_waiting(orderly: tuple[int, ...]):
    """End a failed process at once: a normal exit would deadlock in the shutdown barrier."""
    try:
        yield
    except BaseException as error:
        code = (error.code or 0) if isinstance(error, SystemExit) else 1
        if code in orderly or not jax.distributed.is_initialized():
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} stops, and so will "
            "the others; without a reason here, another one has failed: its messages say why; "
            "continue with `jaxptycho resume` in all",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(int(code))


def first() -> bool:
    """True if this is the process that writes and draws."""
    return jax.process_index() == 0


def all_processes(true: bool) -> bool:
    """True if it is true in all processes; every one of them has to ask."""
    if jax.process_count() == 1:
        return true
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.all(process_allgather(np.int32(true))))


def require_seen(path: Path) -> None:
    """Raise ValueError unless all processes see a file or folder."""
    if not all_processes(path.exists()):
        raise ValueError(
            f"{path} is not seen by all processes; give a folder on a file system that all of "
            "them share"
        )


def broadcast_str(mine: str | None) -> str | None:
    """First text given by any process, the same in all; every process must call it."""
    if jax.process_count() == 1:
        return mine
    return next((words.decode() for words in _of_all((mine or "").encode()) if words), None)


def allreduce_sum(mine: np.ndarray) -> np.ndarray:
    """The sum of what all processes have, the same bits in all; every one of them has to ask."""
    if jax.process_count() == 1:
        return mine
    blocks = np.array_split(mine.ravel(), max(1, -(-mine.nbytes // AT_ONCE)))
    sums = [
        np.sum([np.frombuffer(own, mine.dtype) for own in _of_all(block.tobytes())], 0)
        for block in blocks
    ]
    return np.concatenate(sums).reshape(mine.shape)


def sharing() -> ProcessShard:
    """Shard of the data for each process."""
    return ProcessShard(part(), allreduce_sum, broadcast_str)


def _of_all(mine: bytes) -> list[bytes]:
    """The bytes of every process, in the order of their ranks: numbers would lose digits on a
    device.
    """
    from jax.experimental.multihost_utils import process_allgather

    meet()
    sizes = np.ravel(process_allgather(np.int32(len(mine))))
    padded = np.frombuffer(mine.ljust(max(sizes), b"\0"), np.uint8)
    return [bytes(own[:size]) for own, size in zip(process_allgather(padded), sizes, strict=True)]


def run_on_rank0(task: Callable[[], T]) -> T | None:
    """Result of `task` in process 0, which runs it; an error stops all processes."""
    answer = None
    failed = None
    if first():
        try:
            answer = task()
        except Exception as error:
            failed = error
    meet()
    fine = all_processes(failed is None)
    if failed is not None:
        raise failed
    if not fine:
        raise OSError("process 0 has failed; its message says why")
    return answer


def meet() -> None:
    """Waits for all processes, for days if need be: a computation that waits for another process
    gives up long before.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(
            key=f"jaxptycho-{next(GATHERINGS)}", timeout_ms=7 * 24 * 3600 * 1000
        )


def agreed(why: Callable[[], str | None]) -> Callable[[], str | None]:
    """`why` to stop, as a question that all processes answer alike; they ask one another at every
    eighth call.
    """
    if jax.process_count() == 1:
        return why
    calls = itertools.count()
    reasons = []

    def together():
        if not reasons and next(calls) % EVERY == 0:
            mine = why()
            if not all_processes(mine is None):
                reasons.append(broadcast_str(mine))
        return reasons[0] if reasons else None

    return together


def part() -> tuple[int, int]:
    """(rank, number of processes): which part of every batch is read here."""
    return jax.process_index(), jax.process_count()


def global_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Batch of all processes, of which each has its part in the order of `mesh`."""
    if jax.process_count() == 1:
        return batch
    steps = np.ndim(batch.weight) - 1

    def put(values: Any, spec: Any):
        return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), np.asarray(values))

    split = P(*(None,) * steps, mesh.axis_names)
    of_shots = jax.tree.map(lambda a: put(a, split), (batch.shots, batch.counts, batch.weight))
    return Batch(put(batch.view, P()), *of_shots)


def local(tree: Any):
    """Tree with complete arrays on the host, also those on devices of other processes."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental.multihost_utils import process_allgather

    def fetch(leaf: Any):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        return jax.numpy.asarray(
            np.asarray(leaf) if leaf.is_fully_replicated else process_allgather(leaf, tiled=True)
        )

    return jax.tree.map(fetch, tree)
