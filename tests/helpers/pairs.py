"""The same Python text in two real processes, which find one another over the loopback."""

import os
import socket
import subprocess
import sys

JOIN = """
import os, sys
import jax
jax.config.update("jax_num_cpu_devices", int(os.environ["DEVICES"]))
from jaxptycho.distributed.multihost import join, none_left_waiting
join(os.environ["PAIR"], 2, int(os.environ["RANK"]))
with none_left_waiting(orderly=(0,)):
    exec(sys.argv[1])
"""


def clean(**environment) -> dict[str, str]:
    """This environment without what a launcher may have said; XLA compiles as in other tests."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k == "XLA_FLAGS" or not k.startswith(("SLURM", "OMPI", "PMI", "JAX_", "XLA"))
    }
    return kept | {k: str(v) for k, v in environment.items()}


def address() -> str:
    """A free place on the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def pair(text: str, *arguments, devices=1, seconds=120, **environment) -> list[str]:
    """What both processes printed, each on so many devices; `sys.argv[2:]` are the arguments."""
    env = clean(PAIR=address(), DEVICES=devices, **environment)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, text, *map(str, arguments)],
            env=env | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outs = [process.communicate(timeout=seconds)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], outs
    return outs
