"""`analyse`: a study and its table, complete or not, become the results.

A pure function of its two arguments: no files, no clock, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetrial.analysis.assay import assay
from finetrial.analysis.findings import findings
from finetrial.analysis.naming import aa_name, positive_control_name
from finetrial.analysis.recommend import recommend
from finetrial.analysis.rows import arm_branches, measure_rows, score_rows, selection_rows
from finetrial.analysis.trial import Branch, Entry, Trial
from finetrial.records.results import AuditFinding, Results, Selection
from finetrial.records.table import Table
from finetrial.spec.study import BASE_ARM, Study


def analyse(study: Study, table: Table) -> Results:
    """Everything that the records say about the study's question.

    What is not there yet stays None with its reason: verdicts read NOT MEASURED, status reads partial. Raises
    ValueError if the table holds two rows for one run, or a score of an unknown metric.
    """
    trial = Trial(study, table)
    controls = assay(trial)
    roles = _roles(study)
    tuning = tuple(selection_rows(trial))
    return Results(study=study.name, question=study.question, scale=study.scale, size=study.size,
                   status="complete" if _is_complete(trial) else "partial", arms=_titles(study), roles=roles,
                   scores=tuple(score_rows(trial)), costs=tuple(table.costs), findings=findings(trial, controls),
                   measures=tuple(measure_rows(trial, roles)), tuning=tuning, audit=tuple(_edges(tuning)),
                   assay=controls, recommendation=recommend(trial, controls), provenance=dict(table.provenance))


def _roles(study: Study) -> dict[str, str]:
    """Every arm, controls included, in the order in which people read them."""
    roles = {BASE_ARM: "base", **{arm.name: "arm" for arm in study.arms}}
    if study.controls:
        if study.controls.positive:
            roles[positive_control_name(study.controls)] = "positive control"
        roles[aa_name(study.controls)] = "A/A"
    return roles


def _titles(study: Study) -> dict[str, str]:
    titles = {BASE_ARM: "untouched base", **{arm.name: arm.title for arm in study.arms}}
    if study.controls:
        positive = study.controls.positive
        if positive:
            titles[positive_control_name(study.controls)] = (
                f"{study.arm(positive.arm).title} at {positive.rate_factor:g} times its rate")
        titles[aa_name(study.controls)] = f"{study.arm(study.controls.reference).title}, repeated (A/A)"
    return titles


def _edges(tuning: tuple[Selection, ...]) -> Iterator[AuditFinding]:
    """One warning for each arm and phase whose best rate lies at an edge: a better one may lie outside."""
    seen: dict[tuple[str, str, str, int], list[Selection]] = {}
    for row in tuning:
        if row.at_edge:
            seen.setdefault((row.base, row.arm, row.sequence, row.phase), []).append(row)
    for (base, arm, _, phase), rows in seen.items():
        rates = ", ".join(f"{rate:g}" for rate in sorted({row.chosen for row in rows if row.chosen is not None}))
        yield AuditFinding(rule="best-rate-at-edge", severity="warning", where=f"{base}/{arm}/phase {phase}",
                           message=f"{arm}: the chosen learning rate {rates} lies at the edge of its grid for "
                                   f"{len(rows)} of the seeds; a better one may lie outside: extend the grid")


def _is_complete(trial: Trial) -> bool:
    """Whether every stage is done and every planned run has a row, whatever its outcome."""
    return trial.table.num_done >= trial.table.num_stages and not any(_gaps(trial))


def _gaps(trial: Trial) -> Iterator[bool]:
    study = trial.study
    for base in study.bases:
        for use in study.tasks:
            entry = Entry(0, use.name, trial.primary(use.name))
            yield (None, None) not in trial.grid(Branch(base.name, BASE_ARM, ""), entry)
    for branch in arm_branches(trial):
        for phase in range(1, len(trial.order(branch.sequence)) + 1):
            for use in study.tasks:
                grid = trial.grid(branch, Entry(phase, use.name, trial.primary(use.name)))
                yield any((seed, rate) not in grid for seed in study.seeds for rate in trial.rates(branch, phase))
