"""Runs that are killed in another process, and gone on with on other devices."""

import subprocess
import sys

from pairs import clean

from jaxptycho.distributed.checkpoint import Checkpoints
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.runner import resume
from jaxptycho.jobs.writing import write_job

KILLED = """
import os, sys, time
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 8)
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.runner import start
from jaxptycho.runs.progress import ProgressListener
class Dying(ProgressListener):
    left = int(sys.argv[3])
    def batch(self, patterns):
        self.left -= patterns
        while self.left <= 0:
            if any(path.name.isdigit() for path in Path(sys.argv[2], "checkpoints").iterdir()):  # they are written aside
                os.kill(os.getpid(), 9)
            time.sleep(0.01)
start(read_job(sys.argv[1]), Path(sys.argv[2]), Dying())
"""


def killed(job, folder, after: int) -> list[int]:
    """Numbers of the checkpoints of a run in another process that was killed after so many patterns, with a checkpoint."""
    path = folder.with_suffix(".toml")
    path.write_text(write_job(job))
    run = subprocess.run(
        [sys.executable, "-c", KILLED, path, folder, str(after)],
        env=clean(JAX_ENABLE_X64=1),
        capture_output=True,
    )
    assert run.returncode == -9, run.stderr
    return Checkpoints(folder / "checkpoints").numbers()


def gone_on(folder, **changes):
    """How the run ends with other devices or slabs."""
    path = folder / "run.toml"
    job = read_job(path)
    path.write_text(write_job(job.model_copy(update={"run": job.run.model_copy(update=changes)})))
    return resume(folder)
