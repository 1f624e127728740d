"""`analyse`: a study and its table, complete or not, become the results.

A pure function of its two arguments: no files, no clock, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetrial.analysis.assay import assay
from finetrial.analysis.claims import claim_rows
from finetrial.analysis.examples import distribution_rows, example_rows
from finetrial.analysis.findings import findings
from finetrial.analysis.loading import Branch, Entry
from finetrial.analysis.looks import Look, look_at
from finetrial.analysis.naming import roles, titles
from finetrial.analysis.readings import measure_rows
from finetrial.analysis.recommend import recommend
from finetrial.analysis.rows import arm_branches, score_rows, selection_rows
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.records.results import LookRow, Results
from finetrial.records.table import Table
from finetrial.spec.study import BASE_ARM, Study


def analyse(study: Study, table: Table, earlier_looks: Sequence[int] = ()) -> Results:
    """Everything that the records say about the study's question. `earlier_looks`: the numbers of seeds at which complete
    results of it were seen before.

    What is not there yet stays None with its reason: verdicts read NOT MEASURED, status reads partial. Raises
    ValueError if the table holds two rows for one run, or a score of an unknown metric.
    """
    trial = Trial(study, table)
    controls = assay(trial)
    look = look_at(len(study.seeds), study.looks, earlier_looks, 1 - study.evaluation.confidence)
    recorded = {scores.cell.arm for scores in table.scores}
    shown = roles(study, recorded)
    tuning = tuple(selection_rows(trial))
    return Results(study=study.name, question=study.question, scale=study.scale, size=study.size,
                   status="complete" if _is_complete(trial) else "partial", arms=titles(study, recorded), roles=shown,
                   factors={arm.name: arm.factors for arm in study.arms if arm.factors},
                   scores=tuple(score_rows(trial)), costs=tuple(table.costs), findings=findings(trial, controls, look),
                   measures=tuple(measure_rows(trial, shown)), tuning=tuning,
                   look=_look_row(look), assay=controls, recommendation=recommend(trial, controls),
                   claims=tuple(claim_rows(trial, controls)), examples=tuple(example_rows(trial)),
                   distributions=tuple(distribution_rows(trial)), weight_changes=tuple(table.weight_changes), provenance=dict(table.provenance))


def _look_row(look: Look) -> LookRow:
    return LookRow(number=look.number, num_looks=look.num_looks, num_seeds=look.num_seeds,
                   is_declared=look.is_declared, alpha=look.alpha, caveat=look.caveat)


def _is_complete(trial: Trial) -> bool:
    """Whether every stage is done and every planned run has a row, whatever its outcome."""
    return trial.table.num_done >= trial.table.num_stages and not any(_gaps(trial))


def _gaps(trial: Trial) -> Iterator[bool]:
    """Losses are known at every rate; a primary metric that reads outputs only where validation chose."""
    study = trial.study
    for base in study.bases:
        for task in trial.tasks:
            for metric in {VALIDATION_METRIC, trial.primary(task)}:
                yield (None, None) not in trial.grid(Branch(base.name, BASE_ARM, ""), Entry(0, task, metric))
    for branch in arm_branches(trial):
        for phase in range(1, len(trial.order(branch.sequence)) + 1):
            rates = trial.rates(branch, phase)
            for task in trial.tasks_along(branch.sequence):
                losses = trial.grid(branch, Entry(phase, task, VALIDATION_METRIC))
                yield any((seed, rate) not in losses for seed in study.seeds for rate in rates)
                if (primary := trial.primary(task)) != VALIDATION_METRIC:
                    chosen = {seed: choice.rate for seed, choice in trial.choices(branch, phase).items()}
                    scored = trial.grid(branch, Entry(phase, task, primary))
                    yield any(rate is not None and (seed, rate) not in scored for seed, rate in chosen.items())
