"""Step `evaluate`: the result so far against the ground truth of a simulated file."""

from pathlib import Path
from typing import ClassVar, Literal

from ...distributed.gather import gather_leaves, on_process_zero
from ...io.atomic_write import write_table
from ...io.native import require_truth
from ...model import Model
from ...reports.evaluate import evaluate_model
from ...runs.state import State
from ..context import Context, Step
from ..schema import key


class EvaluateStep(Step):
    """Compare the model with the ground truth of a simulated file."""

    needs: ClassVar = ("refine", "linear", "align", "views")
    kind: Literal["evaluate"]
    truth: str | None = key(
        "file with /truth, relative to this job; default: the measurement",
        None,
        "scan.h5",
        role="input",
    )

    def preview(self, model: Model | None, context: Context) -> Model | None:
        require_truth(self._file(context))
        return model

    def _file(self, context: Context) -> Path:
        return Path(self.truth or str(context.job.data.file))

    def run(self, state: State, context: Context) -> State:
        file = self._file(context)

        def evaluated(model: Model) -> None:
            rows = evaluate_model(gather_leaves(model), file, context.folder)
            table = context.folder / "evaluation.csv"
            write_table(table, ("measure", "value"), rows.items())
            for name, value in rows.items():
                context.listener.say(f"{name}: {value}")

        on_process_zero(evaluated, state.model)
        return state
