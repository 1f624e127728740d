"""finetrial from Python: run a study, open a run, look at it in DataFrames and charts.

    import finetrial

    study = finetrial.Study(name="mine", question="...", bases=["tiny-gpt"], tasks=[...], arms=[...], training={...})
    run = finetrial.run(study)                       # the same as `finetrial run`; resumes what is recorded
    run = finetrial.open_run("runs/mine-custom-standard")
    run.scores, run.costs, run.findings, run.measures, run.tuning     # pandas, one row each as in results.json
    run.figures["plane"]                             # altair, as in the report
    run.recommendation.text
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from finetrial.errors import UserError
from finetrial.records.results import Recommendation, Results
from finetrial.run.options import RunOptions
from finetrial.run.run_file import REPORT_FILE, RESULTS_FILE, STUDY_FILE, study_of_run
from finetrial.run.trial import run_study
from finetrial.spec.io import read_study
from finetrial.spec.study import Study

if TYPE_CHECKING:
    import altair
    import pandas as pd

    from finetrial.stages.switching import TaskSwitch

POINT = "point"  # a column of several: learning_rate, rank, num_train


class Run:
    """A finished or partial run. The tables are made when they are first asked for."""

    def __init__(self, folder: Path, study: Study, results: Results) -> None:
        self.folder, self.study, self.results = folder, study, results

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.results.status})"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row a cell, phase, task, split and metric; points of learning curves have a `step`."""
        return _frame(self.results.scores)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """One row an arm and task: parameters, bytes, seconds."""
        return _frame(self.results.costs)

    @cached_property
    def findings(self) -> pd.DataFrame:
        """One row a hypothesis, then one for each of its contrasts: verdict, estimate, interval."""
        return _frame(self.results.findings)

    @cached_property
    def measures(self) -> pd.DataFrame:
        """One row a measure, arm and task: plasticity, forgetting and the others, with intervals."""
        return _frame(self.results.measures)

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """One row an arm and seed: the learning rates, their validation scores, the one that was chosen."""
        return _frame(self.results.tuning)

    @property
    def recommendation(self) -> Recommendation | None:
        """Which arm to choose and why; `arm` is None where that cannot be told yet."""
        return self.results.recommendation

    @cached_property
    def figures(self) -> Mapping[str, altair.TopLevelMixin]:
        """The report's figures that have something to show, by name, as altair charts."""
        import altair

        from finetrial.report.facts import Facts
        from finetrial.report.figures import all_figures
        from finetrial.report.render import file_spec

        made = all_figures(Facts(self.study, self.results))
        return {figure.name: altair.Chart.from_dict(file_spec(figure), validate=False) for figure in made}

    @property
    def report(self) -> Path:
        """Where the report lies."""
        return self.folder / REPORT_FILE

    def model(self, arm: str, *, seed: int | None = None, task: str = "", base: str | None = None,
              sequence: str | None = None) -> tuple[Any, Any]:
        """(model, tokenizer) of an arm after its last phase, in memory; `base` as the arm is the untouched one. With a `task`, the
        parts that learned it answer, else the newest. The study's first base and the arm's first sequence unless named.

        Raises UserError for an arm, seed, base or sequence that the run does not have.
        """
        from finetrial.run.adapters import open_arm

        adapted = open_arm(self.folder, arm, seed=seed, base=base, sequence=sequence, routing="oracle" if task else "latest",
                           task=task)
        return adapted.base.model, adapted.base.tokenizer

    def tasks(self, arm: str, *, seed: int | None = None, base: str | None = None, sequence: str | None = None) -> TaskSwitch:
        """What an arm trained for every task, side by side on one base in memory: `.to(task)` switches, `.model` answers.

        Raises UserError for an arm, seed, base or sequence that the run does not have, ModelError for methods that cannot stand side by
        side.
        """
        from finetrial.run.adapters import open_tasks

        return open_tasks(self.folder, arm, seed=seed, base=base, sequence=sequence)


def run(study: Study | Mapping[str, Any] | str | Path, *, runs: str | Path = "runs", device: str = "auto",
        jobs: int | None = None, accept: Sequence[str] = (), figures: bool = True, progress: bool = True,
        track: Sequence[str] = ()) -> Run:
    """Run a study (what is recorded already is not computed again), analyse it, report.

    `study`: a `Study`, its content as plain data, or a `.yaml` file. `jobs`: phases at once; one for each core unless
    given. `accept`: threats to validity by name. `figures`: whether to write figure files beside the report. `track`:
    experiment trackers to log the results to; what one of them refuses is a warning. Raises UserError for what can be
    mended.
    """
    from finetrial.run import tracking
    from finetrial.spec.io import parse_study

    trackers = tracking.check_trackers(track)

    relative_to: Path | None = None
    if isinstance(study, (str, Path)):
        relative_to, study = Path(study).resolve().parent, read_study(Path(study))
    elif not isinstance(study, Study):
        study = parse_study(study, "study", plugins_in=Path.cwd())
    options = RunOptions(runs=Path(runs), device=device, jobs=jobs, accept=tuple(accept), figures=figures, view=progress)
    trial = run_study(study, options, relative_to=relative_to, command="finetrial.run(study)")
    if trackers:
        tracking.track(trial.folder, trackers, lambda text: warnings.warn(text, stacklevel=3))
    return Run(trial.folder, trial.study, trial.results)


def open_run(path: str | Path) -> Run:
    """The run in a folder. Raises UserError where there is none, or none that can be read."""
    folder = Path(path)
    for name in (STUDY_FILE, RESULTS_FILE):
        if not (folder / name).is_file():
            mend = f"; finetrial report {folder} makes it of what is recorded" if name == RESULTS_FILE and folder.is_dir() else ""
            raise UserError(f"{folder} is not a finished run: it has no {name}", f"finetrial status lists the runs{mend}")
    try:
        results = Results.model_validate_json((folder / RESULTS_FILE).read_bytes())
    except ValidationError as error:
        raise UserError(f"{folder / RESULTS_FILE} cannot be read: {str(error).splitlines()[0]}",
                        f"make it again from the store: finetrial report {folder}") from error
    return Run(folder, study_of_run(folder), results)


def _frame(rows: Sequence[BaseModel]) -> pd.DataFrame:
    """A row each; where in the grid it lies in columns of its own."""
    import pandas as pd

    dumped = [row.model_dump() for row in rows]
    for values in dumped:
        values.update(values.pop(POINT, {}))
    return pd.DataFrame(dumped)
