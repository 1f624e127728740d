"""Assay sensitivity: could this trial have seen an effect, and what does no effect look like here?

The positive control is an arm at many times its rate: it must score worse on its task than the same arm at its centre
rate, by the whole interval. The A/A control is the reference arm with other random streams: its difference from the
reference shows what chance alone does. Both are read at fixed rates, not at chosen ones, on every base and sequence of
the study, in nats per token: outputs are generated at chosen rates only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from finetrial.analysis import numbers
from finetrial.analysis.contrasts import estimate_loadings
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.loading import Branch, Entry, Loading
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.naming import runs_along
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.records.results import Assay
from finetrial.records.table import Metric
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import FEWEST_SEEDS

Seen = Literal["seen", "not seen", "not measured", "not planned"]
_MEANING = {"seen": "the control did worse, as it must", "not seen": "the control did no worse that this trial can see",
            "not measured": "the control is not measured"}


@dataclass(frozen=True)
class _Compared:
    """The centre of an arm's grid minus its control, signed: above 0 means that the control is worse."""

    estimate: Estimate | None
    sides: tuple[str, str]
    where: str
    found: str  # or why nothing was
    unit: str = ""

    @property
    def what(self) -> str:
        return f"{self.sides[0]} minus {self.sides[1]}, {self.where}"

    @property
    def text(self) -> str:
        return f"{self.sides[1]} against {self.sides[0]}, {self.where}: {self.found}"


def assay(trial: Trial) -> Assay:
    """The state of both controls. Without planned controls: `not planned`."""
    if trial.study.controls is None:
        return Assay()
    seen, positive_text = _positive(trial)
    compared = _aa(trial)
    found = compared.estimate
    return Assay(positive_control=seen, positive_text=positive_text, aa_text=compared.text,
                 aa_compared=compared.what, aa_unit=compared.unit,
                 aa_estimate=found.mean if found else None, aa_low=found.low if found else None,
                 aa_high=found.high if found else None)


def _positive(trial: Trial) -> tuple[Seen, str]:
    """Seen only if it is seen on every base and sequence."""
    controls = trial.study.controls
    assert controls is not None
    if controls.positive is None:
        return "not planned", "no positive control is planned"
    arm, task = controls.positive.arm, controls.positive.task
    states: list[Seen] = []
    texts = []
    for where in _branches(trial, arm):
        found = _compare(trial, where, controls.positive_name, task)
        states.append(_state(found.estimate))
        texts.append(found.text)
    worst = next(state for state in ("not seen", "not measured", "seen") if state in states)
    return worst, f"{_MEANING[worst]}: {'; '.join(texts)}"


def _aa(trial: Trial) -> _Compared:
    """The A/A difference on the first base and sequence, on what the last phase trained that both came to alike."""
    controls = trial.study.controls
    assert controls is not None
    where = next(_branches(trial, controls.reference))
    phase = last_alike(trial, where)
    return _compare(trial, where, controls.aa_name, joined_tasks(trial.order(where.sequence)[phase - 1])[-1], phase)


def last_alike(trial: Trial, where: Branch) -> int:
    """The last phase into which an arm and its A/A control go as equals.

    The control trains every phase at the centre of the grid; the arm goes on from the rate that validation chose. Where
    that was another one, for any seed, later phases compare unlike arms.
    """
    arm, order = trial.study.arm(where.arm), trial.order(where.sequence)
    for phase, trained in enumerate(order[:-1], start=1):
        choices = trial.choices(where, phase)
        if any(seed not in choices or choices[seed].rate != arm.centre_rate(trained) for seed in trial.study.seeds):
            return phase
    return len(order)


def _state(found: Estimate | None) -> Seen:
    if found is None or found.low is None:
        return "not measured"
    return "seen" if found.low > 0 else "not seen"


def _compare(trial: Trial, where: Branch, control: str, task: str, phase: int | None = None) -> _Compared:
    """After a phase; without one, after the last."""
    order = trial.order(where.sequence)
    entry = Entry(phase or len(order), task, VALIDATION_METRIC)
    centre = trial.study.arm(where.arm).centre_rate(order[entry.phase - 1])
    loadings = [Loading(1.0, where, entry, rate=centre),
                Loading(-1.0, replace(where, arm=control), entry)]
    sides = (f"{trial.label(where.arm)} at {numbers.rate(centre)}", trial.label(control))
    place = _place(trial, where, task)
    if entry.phase < len(order):
        place += f", after phase {entry.phase}: later ones of the arm go on from another rate than its control's"
    seeds, reasons = trial.measured_seeds(loadings)
    if len(seeds) < FEWEST_SEEDS:
        counted = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} measured, {FEWEST_SEEDS} are needed"
        return _Compared(None, sides, place, counted + (f" ({'; '.join(reasons)})" if reasons else ""))
    try:
        estimate, _ = estimate_loadings(trial, loadings, seeds)
    except NotMeasured as missing:
        return _Compared(None, sides, place, str(missing))
    metric = trial.metric(entry.metric)
    return _Compared(estimate, sides, place, harm(estimate, metric), metric.unit)


def harm(estimate: Estimate, metric: Metric) -> str:
    """What the control did, in the metric's own direction: `loss 1.44 nats/token higher (95 % interval 1.21 to 1.67; ...)`.

    The estimate is signed: above 0 means that the control is worse.
    """
    is_worse = estimate.mean >= 0
    told = estimate if is_worse else estimate.mirrored()
    value, sure = numbers.with_certainty(told.mean, told.low, told.high, told.confidence)
    name = "score" if metric.higher_is_better else "loss"
    direction = "lower" if is_worse == metric.higher_is_better else "higher"
    return (f"{name} {value} {metric.unit} {direction} ({sure}; {estimate.num_seeds} seeds, "
            f"{estimate.num_clusters} clusters)")


def _place(trial: Trial, where: Branch, task: str) -> str:
    """The task, and base and sequence if there are several."""
    words = [where.base] if len(trial.study.bases) > 1 else []
    words += [where.sequence] if len(trial.study.paths) > 1 else []
    return f"on {', '.join([task, *words])}"


def _branches(trial: Trial, arm: str) -> Iterator[Branch]:
    for base in trial.study.bases:
        for path in trial.study.paths:
            if arm in runs_along(trial.study, path):
                yield Branch(base.name, arm, path.name)
