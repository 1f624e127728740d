"""What a report shows, as plain data: made from (study, results) alone, read by the HTML and the Markdown writer.

Every sentence is made here or in `sentences.py`, so that both writers say the same and tests can read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finetrial.analysis import numbers
from finetrial.records.record import Outcome
from finetrial.records.results import Claim, Finding, Results
from finetrial.report import sentences
from finetrial.report.arms import AA, BASE, FLOOR, POSITIVE_CONTROL, ArmMark
from finetrial.report.examples import Page, example_pages
from finetrial.report.facts import Facts, Path
from finetrial.report.match_table import match_table
from finetrial.report.movement import movement_table
from finetrial.report.provenance import command, provenance_rows
from finetrial.report.score_tables import score_tables
from finetrial.report.sentences import MEANINGS, SYMBOLS
from finetrial.report.strip import Strip, strip
from finetrial.report.tables import audit_table, claims_table, cost_table, sequence_table, storage_table, tuning_table
from finetrial.report.tabular import Table
from finetrial.spec import Contrast, Hypothesis, Study
from finetrial.spec.hypothesis import COST, MATCHED, RATE_RATIO
from finetrial.spec.study import FEWEST_SEEDS

FOREMOST = ("below-floor",)  # rules whose findings change what every answer means
RUNNERS_UP = 3  # named below the recommendation
PER_SEED = {MATCHED: "forgetting at equal learning", RATE_RATIO: "ratios of learning rates"}  # one number a seed


@dataclass(frozen=True)
class Answer:
    """The answer to one contrast, or to a hypothesis as a whole."""

    verdict: str
    symbol: str
    meaning: str  # what the verdict's word means, in one line
    sentence: str
    facts: tuple[str, ...]
    contrast: str = ""
    strip: Strip | None = None
    caveats: str = ""  # what bounds a measured contrast

    @property
    def is_named(self) -> bool:
        """Whether the sentence itself says what was compared."""
        return self.verdict not in ("NOT MEASURED", "ASSAY FAILED")


@dataclass(frozen=True)
class Card:
    """A hypothesis with its answer; `parts` where several contrasts answer it."""

    name: str
    statement: str
    primary: bool
    answer: Answer
    parts: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Check:
    """One reason to trust the trial, or not to. `state`: good, bad or unknown."""

    title: str
    state: str
    text: str


@dataclass(frozen=True)
class View:
    """Everything that a report shows, in order."""

    title: str
    question: str
    status: str
    summary: str  # the verdicts counted, in one line
    alerts: tuple[str, ...]  # what is missing or broken, shown at the top
    cards: tuple[Card, ...]
    recommended: ArmMark | None
    recommendation: str
    not_chosen: tuple[str, ...]  # why not each of the other arms
    runners_up: tuple[str, ...]
    checks: tuple[Check, ...]
    scope: str
    arms: tuple[ArmMark, ...]
    claims: Table | None
    scores: tuple[Table, ...]
    sequences: tuple[Table, ...]  # what sequences of tasks did
    examples: tuple[Page, ...]
    costs: tuple[Table, ...]
    tuning: Table | None
    audit: Table | None
    threats: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]
    command: str


def view(study: Study, results: Results) -> View:
    """What the report shows of these results. Pure: the same input gives the same view."""
    facts = Facts(study, results)
    cards = tuple(_cards(facts))
    chosen = results.recommendation
    return View(
        title=study.name, question=study.question or results.question, status=results.status,
        summary=_summary(cards, results.claims), alerts=tuple(_alerts(facts, cards)), cards=cards,
        recommended=facts.arm(chosen.arm) if chosen and chosen.arm else None,
        recommendation=sentences.sentence(chosen.text) if chosen else "No arm can be recommended from these results.",
        not_chosen=chosen.others if chosen else (),
        runners_up=tuple(facts.label(name) for name in chosen.runners_up[:RUNNERS_UP]) if chosen else (),
        checks=tuple(_checks(facts)), scope=_scope(facts), arms=facts.arms, claims=claims_table(facts),
        scores=(*score_tables(facts), *(table for path in facts.paths if (table := movement_table(facts, path)))),
        sequences=tuple(table for path in facts.paths if (table := sequence_table(facts, path))),
        examples=example_pages(facts),
        costs=tuple(table for path in facts.paths for make in (cost_table, match_table, storage_table)
                    if (table := make(facts, path))),
        tuning=tuning_table(facts), audit=audit_table(facts), threats=tuple(_threats(facts)),
        provenance=provenance_rows(study, results), command=command(study, results))


def _cards(facts: Facts) -> Iterable[Card]:
    ordered = sorted(facts.study.hypotheses, key=lambda hypothesis: not hypothesis.primary)
    for hypothesis in ordered:
        rows = [row for row in facts.results.findings if row.hypothesis == hypothesis.name]
        parts = list({contrast or row.contrast: (row, contrast) for row, contrast in facts.answers(hypothesis)}.values())
        if not parts:
            absent = Finding(hypothesis=hypothesis.name, verdict="NOT MEASURED",
                             reason="the results hold no finding on it yet")
            yield Card(hypothesis.name, hypothesis.statement, hypothesis.primary, _answer(absent, None, facts))
            continue
        whole = next((row for row in rows if not row.contrast), None)
        if len(parts) == 1:
            yield Card(hypothesis.name, hypothesis.statement, hypothesis.primary, _answer(*parts[0], facts))
            continue
        yield Card(hypothesis.name, hypothesis.statement, hypothesis.primary,
                   _whole_answer(whole, [row for row, _ in parts], hypothesis),
                   tuple(_answer(row, contrast, facts) for row, contrast in parts))


def _answer(finding: Finding, contrast: Contrast | None, facts: Facts) -> Answer:
    return Answer(finding.verdict, SYMBOLS[finding.verdict], MEANINGS[finding.verdict],
                  sentences.verdict_sentence(finding, contrast, facts.label), sentences.support_facts(finding),
                  sentences.contrast_name(finding, contrast, facts.label), strip(finding, contrast),
                  "" if finding.estimate is None or finding.by_construction else _caveats(finding))


def _caveats(finding: Finding) -> str:
    reason = "" if finding.verdict == "NOT MEASURED" else finding.reason  # the answer itself says it then
    return " ".join(filter(None, map(sentences.sentence, (reason, finding.settling))))


def _whole_answer(whole: Finding | None, parts: list[Finding], hypothesis: Hypothesis) -> Answer:
    finding = whole or Finding(hypothesis=parts[0].hypothesis, verdict="NOT MEASURED",
                               reason="the results hold no finding on the hypothesis as a whole")
    return Answer(finding.verdict, SYMBOLS[finding.verdict], MEANINGS[finding.verdict],
                  sentences.whole_sentence(finding, parts, [len(group) for group in hypothesis.groups]), ())


def _summary(cards: tuple[Card, ...], claims: Sequence[Claim]) -> str:
    if not cards and claims:
        standings = Counter(claim.standing for claim in claims)
        words = [f"{standing} ({count})" for standing, count in standings.most_common()]
        return f"Published claims, each with a flaw of its comparison mended: {numbers.listed(words)}."
    if not cards:
        return "This study states no hypothesis: the figures below describe, they decide nothing."
    counts = Counter(card.answer.verdict for card in cards)
    words = [f"{counts[verdict]} {verdict.lower()}" for verdict in MEANINGS if counts[verdict]]
    return f"{numbers.counted(len(cards), 'hypothesis', 'hypotheses')}: {numbers.listed(words)}."


def _alerts(facts: Facts, cards: tuple[Card, ...]) -> Iterable[str]:
    if facts.results.assay.positive_control == "not seen":
        yield "The positive control was not seen: this trial can show nothing, whatever the numbers below say."
    if facts.results.status != "complete":
        yield f"The run is {facts.results.status}: what follows uses what is there so far."
    for path in (*facts.paths, *facts.control_paths):
        yield from _missing_cells(facts, path)
    yield from (f"{found.message}." for found in facts.results.audit if found.rule in FOREMOST)
    unmeasured = [card.name for card in cards if card.answer.verdict == "NOT MEASURED"]
    if unmeasured:
        yield f"Not measured: {numbers.listed(unmeasured)}."


def _missing_cells(facts: Facts, path: Path) -> Iterable[str]:
    """Per arm, how many of the planned (seed, rate) cells have no score after the last phase, or failed.

    Read on the task that was learned last, or on the first one that is scored where that one is not. Where an arm is tested
    at its chosen rates only, there is a test score for each seed, and validation tells which rates failed.
    """
    scored = facts.scored_along(path)
    if not scored:
        return
    task = path.last_task if path.last_task in scored else scored[0]
    metric, name = facts.tuning_metric(task), facts.path_label(path)
    where = f" ({name})" if name else ""
    beside = (BASE, FLOOR, POSITIVE_CONTROL, AA) if path.is_control else (FLOOR,)
    for arm in (arm for arm in facts.along(path) if arm.role not in beside):
        rows = facts.rows(path, arm.name, 0 if arm.role == BASE else path.last_phase, task, "test", metric)
        planned, tested = _planned(facts, path, arm)
        absent = tested - len({(row.seed, row.point) for row in rows})
        tried = () if arm.role == BASE else facts.rows(path, arm.name, path.last_phase, path.last_task, "val", metric)
        outcomes = {(row.seed, row.point): row.outcome for row in (*tried, *rows)}
        if absent > 0 and (len(outcomes) < planned or Outcome.OK in outcomes.values()):
            what = "the test score is" if arm.role == BASE else f"{absent:,} of {numbers.counted(tested, 'cell')} are"
            yield f"{arm.label}{where}: {what} missing{' so far' if facts.results.status != 'complete' else ''}."
        failed = Counter(str(outcome) for outcome in outcomes.values() if outcome is not Outcome.OK)
        for word, number in sorted(failed.items()):
            yield f"{arm.label}{where}: {word} in {number:,} of {numbers.counted(planned, 'cell')}."


def _planned(facts: Facts, path: Path, arm: ArmMark) -> tuple[int, int]:
    """The cells of an arm that are trained, and those that are tested."""
    if arm.role == BASE:
        return 1, 1
    rates = {own.name: len(own.rates(path.tasks[-1])) for own in facts.study.arms}
    seeds = len(facts.study.seeds)
    trained = rates.get(arm.name, 1) * seeds
    return trained, trained if facts.study.at_every_rate(arm.name) else seeds


def _checks(facts: Facts) -> Iterable[Check]:
    assay, results = facts.results.assay, facts.results
    state = {"seen": "good", "not seen": "bad"}.get(assay.positive_control, "unknown")
    otherwise = {"seen": "an effect that is known to be there was seen, so the trial can see effects",
                 "not seen": "an effect that is known to be there was not seen: no finding can be trusted",
                 "not measured": "the control did not finish, so it is open whether the trial can see effects",
                 "not planned": "the study has none, so a null result may only mean that the trial is blind"}
    yield Check(f"Positive control: {assay.positive_control}", state,
                sentences.sentence(assay.positive_text or otherwise[assay.positive_control]))
    yield _aa_check(facts)
    seeds = len(facts.study.seeds)
    enough = seeds >= FEWEST_SEEDS
    yield Check(f"Replicates: {numbers.counted(seeds, 'seed')}", "good" if enough else "bad",
                _covered(facts) if enough else f"Below {FEWEST_SEEDS} seeds there are no intervals and no verdicts.")
    if results.look is not None and results.look.caveat:
        exploratory = not results.look.is_declared
        yield Check("Look: exploratory" if exploratory else f"Look {results.look.number} of {results.look.num_looks}",
                    "bad" if exploratory else "good", sentences.sentence(results.look.caveat))
    if late := [row.hypothesis for row in results.findings if row.exploratory and not row.contrast]:
        yield Check(f"Hypotheses: {numbers.listed(late)} exploratory", "bad",
                    "Not stated, or not with these others, before results that they speak of were seen in this folder of runs.")
    open_threats = [row for row in results.audit if row.severity == "threat" and not row.accepted]
    counts = Counter(row.severity for row in results.audit)
    words = [numbers.counted(counts[name], name) for name in ("threat", "warning", "note") if counts[name]]
    yield Check(f"Audit: {numbers.listed(words) or 'nothing found'}",
                "bad" if open_threats else "unknown" if counts["threat"] or counts["warning"] else "good",
                "Listed under threats to validity in the report." if words else "No rule found a fault in the plan.")


def _covered(facts: Facts) -> str:
    """What the intervals speak for: all but a few kinds of comparison have seeds and items as sources of noise."""
    contrasts = [contrast for hypothesis in facts.study.hypotheses for contrast in hypothesis.contrasts]
    per_seed = [words for quantity, words in PER_SEED.items() if any(one.quantity == quantity for one in contrasts)]
    words = ["Intervals cover new seeds and new items"]
    words += [f"those of {numbers.listed(per_seed)} new seeds only"] if per_seed else []
    words += ["those of measured costs new repeats of the profile only"] if any(
        one.quantity == COST and one.is_ratio for one in contrasts) else []
    return f"{', '.join(words)}."


def _aa_check(facts: Facts) -> Check:
    assay = facts.results.assay
    if assay.aa_estimate is None:
        planned = any(arm.role == AA for arm in facts.arms) or facts.study.controls is not None
        return Check(f"A/A: {'not measured' if planned else 'not planned'}", "unknown", assay.aa_text
                     or "Two runs of the same arm would show how large no effect looks here.")
    includes_zero = assay.aa_low is None or assay.aa_high is None or assay.aa_low <= 0 <= assay.aa_high
    value, interval = numbers.with_interval(assay.aa_estimate, assay.aa_low, assay.aa_high)
    text = assay.aa_text or f"The same arm twice differs by {value} (interval {interval or 'not estimated'})."
    title = "A/A: no difference between equal arms" if includes_zero else "A/A: equal arms differ"
    return Check(title, "good" if includes_zero else "bad", sentences.sentence(text))


def _scope(facts: Facts) -> str:
    study = facts.study
    bases = numbers.listed([base.name for base in study.bases])
    learned = numbers.listed([use.name for use in study.tasks if use.role == "learn"])
    outside = numbers.listed([use.name for use in study.tasks if use.role == "outside"])
    budgets = numbers.listed([*dict.fromkeys(str(study.training_of(arm).budget) for arm in study.arms)])
    text = f"Measured on {bases}, learning {learned}, {budgets} of training a run" + (f", scored on {outside} besides" if outside else "")
    return f"{text}. No interval speaks for other models, tasks or " \
           "budgets: they were not tested."


def _threats(facts: Facts) -> Iterable[str]:
    for name in facts.study.accept_threats:
        yield f"Accepted by the study: {name}."
    if not any(arm.role == POSITIVE_CONTROL for arm in facts.arms):
        yield "There is no positive control: a difference that was not seen may still be there."
    yield from facts.study.notes
