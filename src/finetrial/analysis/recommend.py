"""The recommendation: the cheapest arm within the study's limits that is not significantly worse than the best of them.

Cheap means few trainable parameters, in the phase that trains most. The best arm is the one with the best mean on the task learned last; every other
is compared with it by the crossed interval, unadjusted: an arm is kept unless its interval shows it to be worse. How
much worse it may still be is stated, because "not shown to be worse" is not "as good", and so is why each other arm
fell. Where the answer depends on an arm of which it is open whether it stays within a limit, it is "cannot tell yet",
with the seeds that would settle it. An arm that lost a seed for good is left out and named; one that lacks a run is
waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, combinations

from finetrial.analysis import numbers
from finetrial.analysis.contrasts import estimate_loadings
from finetrial.analysis.costs import path_cost
from finetrial.analysis.estimate import Estimate
from finetrial.analysis.failed import lasting_failure
from finetrial.analysis.limits import Judged, judge, standing, why_not
from finetrial.analysis.loading import Branch, Entry, Loading
from finetrial.analysis.looks import settle
from finetrial.analysis.missing import NotMeasured
from finetrial.analysis.moderation import moderated_alike
from finetrial.analysis.trial import VALIDATION_METRIC, Trial
from finetrial.records.results import Assay, Recommendation
from finetrial.spec.slots import joined_tasks

MOST_OPEN = 6  # arms of which every selection is tried


@dataclass(frozen=True)
class _Candidate:
    arm: str
    parameters: int
    behind: Estimate | None  # best minus this arm; None for the best itself

    @property
    def order(self) -> tuple[int, float]:
        """The cheapest first; of equally cheap ones the better."""
        return self.parameters, self.behind.mean if self.behind else 0.0


@dataclass
class _Choice:
    """Among some arms: those not shown to be worse than the best, cheapest first, and how far behind the others are."""

    best: str
    kept: list[_Candidate] = field(default_factory=list)
    worse: dict[str, Estimate] = field(default_factory=dict)

    @property
    def chosen(self) -> _Candidate:
        return self.kept[0]


def recommend(trial: Trial, assay: Assay) -> Recommendation:
    """The arm to choose on the first base and sequence, or why that cannot be told yet."""
    if assay.positive_control == "not seen":
        return _cannot(f"the assay failed: {assay.positive_text}")
    try:
        return _recommend(trial)
    except NotMeasured as missing:
        return _cannot(str(missing))


def _recommend(trial: Trial) -> Recommendation:
    base, path = trial.study.bases[0].name, trial.study.paths[0]
    task = joined_tasks(path.tasks[-1])[-1]
    entry = Entry(len(path.tasks), task, trial.primary(task))
    readings = {arm.name: Loading(1.0, Branch(base, arm.name, path.name), entry) for arm in trial.study.arms_along(path)}
    failed = {name: word for name, loading in readings.items() if (word := lasting_failure(trial, loading))}
    readings = {name: loading for name, loading in readings.items() if name not in failed}
    if not readings:
        raise NotMeasured(f"no arm finished for every seed ({_listed(trial, failed)})")
    _complete(trial, readings)
    judged = {name: judge(trial, loading.branch) for name, loading in readings.items()}
    within = [name for name in readings if standing(judged[name]) == "within"]
    undecided = [name for name in readings if standing(judged[name]) == "open"]
    beyond = {name: why_not(judged[name]) for name in readings if standing(judged[name]) == "beyond"}
    if not within and not undecided:
        return Recommendation(arm=None, text="no arm stays within the limits", others=_fallen(trial, beyond))
    choice = _choose(trial, readings, within)
    if undecided:
        possible = (_choose(trial, readings, [*within, *some]) for some in _some_of(undecided))
        if choice is None or any(other is not None and other.chosen.arm != choice.chosen.arm for other in possible):
            return _cannot(_open_text(trial, {name: judged[name] for name in undecided}))
        beyond |= {name: _open_text(trial, {name: judged[name]}, named=False) for name in undecided}
    assert choice is not None
    text = " ".join(filter(None, (_reason(trial, choice, entry), _beside_base(trial, readings, choice.chosen.arm),
                                  _forgotten(trial, readings, choice.chosen.arm))))
    if failed:
        text += f" Not considered: {_listed(trial, failed)}."
    return Recommendation(arm=choice.chosen.arm, text=text, others=_others(trial, choice, beyond, entry),
                          runners_up=tuple(one.arm for one in choice.kept[1:]))


def _some_of(names: list[str]) -> Iterator[tuple[str, ...]]:
    """Which of the arms that are open may turn out to be within the limits: any of them, and with more than a few of those
    all, none, and each alone or missing."""
    sizes = range(1, len(names) + 1) if len(names) <= MOST_OPEN else sorted({1, len(names) - 1, len(names)})
    return chain.from_iterable(combinations(names, size) for size in sizes)


def _complete(trial: Trial, readings: dict[str, Loading]) -> None:
    """Raises NotMeasured while any of these arms lacks a seed."""
    seeds = trial.study.seeds
    for name, loading in readings.items():
        complete, reasons = trial.measured_seeds([loading])
        if len(complete) < len(seeds):
            raise NotMeasured(f"{trial.label(name)} has {len(complete)} of {len(seeds)} seeds: {'; '.join(reasons)}")


def _choose(trial: Trial, readings: dict[str, Loading], names: list[str]) -> _Choice | None:
    """The best of some arms and those that no interval shows to be worse; None of none. Raises NotMeasured."""
    if not names:
        return None
    seeds = trial.study.seeds
    means = {name: float(trial.differences([readings[name]], seeds).values.mean()) for name in names}
    choice = _Choice(max(means, key=lambda name: means[name]))
    best, others = readings[choice.best], [name for name in names if name != choice.best]
    choice.kept.append(_Candidate(choice.best, _parameters(trial, best), None))
    plain = [estimate_loadings(trial, [best, Loading(-1.0, readings[name].branch, readings[name].entry)], seeds)[0]
             for name in others]
    for name, behind in zip(others, moderated_alike(plain, trial.study.evaluation.seed_variance), strict=True):
        parameters = _parameters(trial, readings[name])
        if behind.low is None:
            raise NotMeasured(f"{behind.reason}; {settle(behind, 1 - behind.confidence).text}")
        if behind.low <= 0:
            choice.kept.append(_Candidate(name, parameters, behind))
        else:
            choice.worse[name] = behind
    choice.kept.sort(key=lambda candidate: candidate.order)
    return choice


def _parameters(trial: Trial, loading: Loading) -> int:
    """The most that the arm trains in a phase."""
    branch = loading.branch
    cost = path_cost(trial.table.costs, branch.base, branch.arm, trial.order(branch.sequence))
    if cost is not None and cost.params_trainable is not None:
        return cost.params_trainable
    raise NotMeasured(f"the trainable parameters of {trial.label(loading.branch.arm)} are not known")


def _reason(trial: Trial, choice: _Choice, entry: Entry) -> str:
    chosen, is_limited = choice.chosen, trial.study.limits != type(trial.study.limits)()
    size = f"{trial.label(chosen.arm)} trains {_amount(chosen, entry)}"
    among = " of the arms within the limits" if is_limited else ""
    if len(choice.kept) + len(choice.worse) == 1:
        return f"{size} and is the only arm {'within the limits' if is_limited else 'that was compared'}."
    if chosen.behind is None:
        others = "the only arm not shown to be worse than the best" if len(choice.kept) == 1 else (
            "the cheapest of the arms not shown to be worse than the best")
        return f"{size} and has the best score{among} on {entry.task}; it is {others}."
    behind = chosen.behind
    best = f"the best{among}, {trial.label(choice.best)}, on {entry.task}"
    return (f"{size} and is the cheapest arm not shown to be worse than {best}: it is behind by "
            f"{_behind(trial, behind, entry)}.{_doubt(trial, behind, entry)}")


def _beside_base(trial: Trial, readings: Mapping[str, Loading], arm: str) -> str:
    """A warning where the arm is not shown to beat the untouched base on what it has learned."""
    found = _change(trial, readings, arm, lambda of_arm: [of_arm, replace(of_arm.at_phase(0), coefficient=-1.0)])
    if found is None:
        return ""
    entry = readings[arm].entry
    if found.low is None or found.high is None:
        apart = f"{numbers.plain(abs(found.mean))} {trial.metric(entry.metric).unit} {'better' if found.mean > 0 else 'worse'}"
        return f"Whether it beats the untouched base is open: its score is {apart} than the base's ({found.reason})."
    if found.low > 0:
        return ""
    if found.high < 0:
        return f"Yet it is worse than the untouched base, by {_behind(trial, found.mirrored(), entry)}: keep the base."
    return f"It is not shown to beat the untouched base: its score is better by {_behind(trial, found, entry)}."


def _forgotten(trial: Trial, readings: Mapping[str, Loading], arm: str) -> str:
    """What the arm forgets, where no limit weighs it."""
    limits = trial.study.limits
    if limits.max_forgetting is not None or limits.max_forgetting_share is not None:
        return ""
    lost = []
    for task, phase in _known_before(trial, readings[arm]):
        entry = replace(readings[arm].entry, task=task, metric=VALIDATION_METRIC)

        def loss(of_arm: Loading, entry: Entry = entry, phase: int = phase) -> list[Loading]:
            after = replace(of_arm, coefficient=-1.0, entry=entry)
            return [replace(after, coefficient=1.0).at_phase(phase), after]

        found = _change(trial, readings, arm, loss)
        if found is not None and found.low is not None and found.low > 0:
            lost.append(f"{_behind(trial, found, entry)} of {task}")
    return f"Forgetting was not weighed, since no limit was stated: it forgets {numbers.listed(lost)}." if lost else ""


def _change(trial: Trial, readings: Mapping[str, Loading], arm: str,
            loadings: Callable[[Loading], list[Loading]]) -> Estimate | None:
    """How an arm changed, its variance of seeds moderated by those of the other arms, as limits are judged; None where it
    is not measured."""
    found: dict[str, Estimate] = {}
    for name, of_arm in readings.items():
        with suppress(NotMeasured):
            found[name] = estimate_loadings(trial, loadings(of_arm), trial.study.seeds)[0]
    alike = moderated_alike(list(found.values()), trial.study.evaluation.seed_variance)
    return dict(zip(found, alike, strict=True)).get(arm)


def _known_before(trial: Trial, chosen: Loading) -> Iterator[tuple[str, int]]:
    """Every text that was known before the last phase, and after which phase: 0 before any."""
    yield from ((use.name, 0) for use in trial.study.tasks if use.role == "outside" and use.evaluate)
    order = [joined_tasks(phase) for phase in trial.order(chosen.branch.sequence)]
    for task in dict.fromkeys(task for phase in order[:-1] for task in phase if task not in order[-1]):
        yield task, max(number for number, phase in enumerate(order, 1) if task in phase)


def _doubt(trial: Trial, behind: Estimate, entry: Entry) -> str:
    """A caveat where the cheapest arm may be worse by more than a margin that the study states for this task."""
    margins = [contrast.margin for hypothesis in trial.study.hypotheses for contrast in hypothesis.contrasts
               if contrast.task == entry.task and contrast.quantity == "score" and contrast.margin is not None
               and (contrast.metric or trial.primary(entry.task)) == entry.metric]
    if not margins or behind.high is None or behind.high <= min(margins):
        return ""
    settling = settle(behind, 1 - behind.confidence, margin=min(margins), equivalence=True)
    return (f" That may be more than the margin of {numbers.given(min(margins))} {trial.metric(entry.metric).unit}; "
            f"{settling.text}.")


def _others(trial: Trial, choice: _Choice, fallen: dict[str, str], entry: Entry) -> tuple[str, ...]:
    """Why each other arm fell: it costs more, it is no cheaper, it is worse, or it is beyond a limit."""
    why = {one.arm: "it is no cheaper, and its score no better" if one.parameters == choice.chosen.parameters
           else f"it trains more, {_amount(one, entry)}" for one in choice.kept[1:]}
    why |= {name: f"it is behind {trial.label(choice.best)} by {_behind(trial, behind, entry)}"
            for name, behind in choice.worse.items()}
    return _fallen(trial, {**why, **fallen})


def _amount(candidate: _Candidate, entry: Entry) -> str:
    """Of the phase that trains most, where there are several."""
    return f"{'up to ' if entry.phase > 1 else ''}{numbers.short_count(candidate.parameters)} parameters"


def _behind(trial: Trial, behind: Estimate, entry: Entry) -> str:
    value, sure = numbers.with_certainty(behind.mean, behind.low, behind.high, behind.confidence)
    return f"{value} {trial.metric(entry.metric).unit} ({sure})"


def _open_text(trial: Trial, judged: dict[str, list[Judged]], *, named: bool = True) -> str:
    """What is open about some arms, and what would settle it."""
    parts = []
    for name, of_arm in judged.items():
        for one in (one for one in of_arm if one.standing == "open"):
            whose = f"{trial.label(name)}: " if named else ""
            parts.append(f"{whose}{one.why}; which side it is on is open: {one.settling}")
    return "; ".join(parts)


def _fallen(trial: Trial, why: dict[str, str]) -> tuple[str, ...]:
    """One sentence a reason, with the arms that it holds for, in the order of the study."""
    arms: dict[str, list[str]] = {}
    for arm in trial.study.arms:
        if arm.name in why:
            arms.setdefault(why[arm.name], []).append(trial.label(arm.name))
    return tuple(f"Not {'; '.join(labels)}: {_of_each(reason) if len(labels) > 1 else reason}."
                 for reason, labels in arms.items())


def _of_each(reason: str) -> str:
    """The same reason said of several arms."""
    simple = reason.startswith("it ") and "; it " not in reason
    return f"each {reason.removeprefix('it ')}" if simple else reason


def _cannot(why: str) -> Recommendation:
    return Recommendation(arm=None, text=f"cannot tell yet: {why}")


def _listed(trial: Trial, excluded: dict[str, str]) -> str:
    return ", ".join(f"{trial.label(name)} ({word})" for name, word in excluded.items())
