"""Context of a step of a job, and the interface of all steps."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..data import Dataset
from ..distributed.checkpoint import Checkpoints
from ..distributed.multihost import all_processes, first, require_seen, run_on_rank0
from ..distributed.sharding import on_the_host
from ..model import Model
from ..runs.batch_source import BatchSource
from ..runs.progress import ProgressListener
from ..runs.state import Progress, State
from ..start.position_search import is_quick
from ..start.positions import with_positions
from .build import build_model, found_map, found_positions
from .schema import Section
from .sections import Setup
from .series import series_model
from .started import from_result

SCAN_MAP = "scan_map.txt"
POSITIONS = "positions.txt"


@dataclass(eq=False)
class Context:
    """Measurement, devices and folder of a run, as one of its steps finds them."""

    job: Setup
    batches: BatchSource | None  # None before the measurement is simulated
    run: Path
    number: int  # of the step
    folder: Path  # of the step
    listener: ProgressListener
    stop: Callable[[], str | None]
    checkpoints: Checkpoints
    epochs: int = 0  # of all steps of the run
    on_epoch: Callable[[Progress], None] = lambda progress: None
    write_found: Callable[[int, Mapping[str, Any]], None] = lambda number, keys: None

    @property
    def source(self) -> BatchSource:
        """Batches of the measurement, at the positions found."""
        assert self.batches is not None  # of a step that simulates
        return self._located if (self.run / POSITIONS).exists() else self.batches

    @cached_property
    def _located(self) -> BatchSource:
        source = self.batches
        assert source is not None
        positions = [np.loadtxt(self.run / POSITIONS)]
        located = replace(source, data=with_positions(source.data, positions))
        located.__dict__["table"] = source.table  # the same patterns
        return located

    @property
    def data(self) -> Dataset:
        """The measurement."""
        return self.source.data

    def first_model(self) -> Model:
        """The model that a run starts from, with what `find_scan` has found."""
        with on_the_host():  # a specimen too large for one device does not pass through one
            if self.job.is_series:
                return from_result(self.job.start, series_model(self.job, self.data))
            file = self.run / SCAN_MAP
            matrix = np.loadtxt(file) if file.exists() else None
            return from_result(self.job.start, build_model(self.job, self.data, matrix))

    def find_scan(self) -> None:
        """Find positions and the map of an affine scan where the job asks for it, once a run.

        They are written beside the job.
        """
        scan = self.job.scan
        say = self.listener.say
        if scan.error_angstrom is not None:
            self._find(POSITIONS, lambda: found_positions(self.job, self.data, say))
        if scan.kind == "affine":
            self._find(SCAN_MAP, lambda: found_map(self.job, self.data, say))

    def search_positions(self) -> bool:
        """Search for the positions of all shots although the job gives no error of them.

        They are written beside the job. True if others than those recorded fit better; then what
        began at these is deleted: checkpoints and the map of an affine scan.
        """
        found = run_on_rank0(lambda: found_positions(self.job, self.data, self.listener.say))
        better = all_processes(found is not None or not first())
        if better:
            self.checkpoints.clear()

        def write() -> None:
            if better:
                (self.run / SCAN_MAP).unlink(missing_ok=True)
            np.savetxt(self.run / POSITIONS, self.data.positions[0] if found is None else found)

        run_on_rank0(write)
        return better

    @property
    def searches(self) -> bool:
        """True if positions may be searched for without being asked, which is done once a run."""
        job = self.job
        known = job.scan.error_angstrom is not None or job.start.result is not None
        if job.scan.search == "off" or known or job.is_series:
            return False
        slices = getattr(job.specimen, "slices", None) or 1
        quick = job.run.slabs == 1 and is_quick(self.data, slices)
        return quick and not (self.run / POSITIONS).exists()

    def _find(self, name: str, find: Callable[[], np.ndarray | None]) -> None:
        file = self.run / name

        def write() -> None:
            if not file.exists():
                found = find()
                assert found is not None  # of an error that is given
                np.savetxt(file, found)

        run_on_rank0(write)
        require_seen(file)


class Step(Section):
    """One step of a job: its keys, and what it does."""

    simulates: ClassVar[bool] = False  # whether it makes a measurement rather than requires one
    finds_keys: ClassVar[bool] = False  # whether later steps depend on keys that it finds
    needs: ClassVar[tuple[str, ...]] = ()  # kinds of which one has to come before

    @abstractmethod
    def run(self, state: State, context: Context) -> State:
        """Return the state after the step. Raises Stopped, or Diverged with the last good state."""

    @abstractmethod
    def preview(self, model: Model | None, context: Context) -> Model | None:
        """Return the model after the step, as far as its shapes go, before any computation.

        Raises ValueError for what does not fit together.
        """

    def summary(self) -> str:
        """Description of the step in one line."""
        said: Any = type(self).__doc__ or ""
        return said.strip().split("\n")[0]
