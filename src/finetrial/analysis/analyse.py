"""`analyse`: a study and its table, complete or not, become the results.

A pure function of its two arguments: no files, no clock, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from finetrial.analysis.assay import assay
from finetrial.analysis.claims import claim_rows
from finetrial.analysis.examples import distribution_rows, example_rows
from finetrial.analysis.findings import findings
from finetrial.analysis.loading import Branch, Entry
from finetrial.analysis.looks import look_at
from finetrial.analysis.naming import roles, titles
from finetrial.analysis.readings import measure_rows
from finetrial.analysis.recommend import recommend
from finetrial.analysis.rows import arm_branches, score_rows, selection_rows
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.records.results import LookRow, Results
from finetrial.records.table import Table
from finetrial.spec.study import BASE_ARM, Study


def analyse(study: Study, table: Table, earlier_looks: Sequence[int] = (),
            stated_after: Mapping[str, str] | None = None) -> Results:
    """Everything that the records say about the study's question. `earlier_looks`: the numbers of seeds at which
    complete results of it were seen before. `stated_after`: hypotheses that were stated after results which they speak of
    were seen, each with a sentence to put beside its verdict.

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
                   scores=tuple(score_rows(trial)), costs=tuple(table.costs), findings=findings(trial, controls, look, stated_after or {}),
                   measures=tuple(measure_rows(trial, shown)), tuning=tuning,
                   look=LookRow(**asdict(look), caveat=look.caveat), assay=controls, recommendation=recommend(trial, controls),
                   claims=tuple(claim_rows(trial, controls)), examples=tuple(example_rows(trial)),
                   distributions=tuple(distribution_rows(trial)), weight_changes=tuple(table.weight_changes),
                   provenance=dict(table.provenance))


def _is_complete(trial: Trial) -> bool:
    """Whether every stage is done and every planned run has a row, whatever its outcome."""
    return trial.table.num_done >= trial.table.num_stages and not any(_gaps(trial))


def _gaps(trial: Trial) -> Iterator[bool]:
    """Losses are known at every rate, or like a primary metric that reads outputs where validation chose."""
    study = trial.study
    for base in study.bases:
        for task in trial.tasks:
            for metric in {VALIDATION_METRIC, trial.primary(task)}:
                yield (None, None) not in trial.grid(Branch(base.name, BASE_ARM, ""), Entry(0, task, metric))
    for branch in arm_branches(trial):
        for phase in range(1, len(trial.order(branch.sequence)) + 1):
            grid = {(seed, rate) for seed in study.seeds for rate in trial.rates(branch, phase)}
            chosen = {(seed, choice.rate) for seed, choice in trial.choices(branch, phase).items()
                      if choice.rate is not None}
            for task in trial.tasks_along(branch.sequence):
                for metric in {VALIDATION_METRIC, trial.primary(task)}:
                    everywhere = metric == VALIDATION_METRIC and study.at_every_rate(branch.arm)
                    scored = trial.grid(branch, Entry(phase, task, metric))
                    yield any(point not in scored for point in (grid if everywhere else chosen))
