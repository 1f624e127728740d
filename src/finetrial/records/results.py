"""`results.json`: the long-form results of a study, and the schema that validates them.

Unknown is null, never a guess. A cell that did not finish has its outcome in words and a null value.
`finetrial schema results` prints the JSON schema made from these models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from finetrial.records.outputs import Distribution, Example
from finetrial.records.record import Outcome
from finetrial.records.row import Row

RESULTS_SCHEMA = 1
NATS_PER_TOKEN = "nats-per-token"  # the metric that every task has, and by which rates are chosen

Routing = Literal["latest", "oracle"]
Split = Literal["train", "val", "test"]
Verdict = Literal["SUPPORTED", "REFUTED", "EQUIVALENT", "INCONCLUSIVE", "NOT MEASURED", "ASSAY FAILED"]


class Point(Row):
    """Where in the grid a cell lies."""

    learning_rate: float | None = None
    rank: int | None = None
    num_train: int | None = None


class Score(Row):
    """One mean over items: R[phase, task] of one cell, or one point of a learning curve (`step` below the last)."""

    base: str
    arm: str
    sequence: str
    seed: int | None  # None for the untouched base: it has no seed
    phase: int
    step: int | None = None  # optimizer steps so far; None = the end of the phase
    point: Point = Point()
    selected: bool = False  # this point is the one that validation chose for this seed
    task: str
    split: Split
    routing: Routing = "latest"
    metric: str
    scorer_version: int
    value: float | None
    n: int = 0  # items in the mean
    n_missing: int = 0
    unit: str = ""
    higher_is_better: bool
    primary: bool = False
    outcome: Outcome = Outcome.OK


class Cost(Row):
    """What one arm costs on one task. Parameters and bytes are exact; seconds come from the profile stage.

    A profile is repeated with the arms interleaved; a measured column is the median over its repeats. `repeats` holds
    them by column, so that costs are compared within a repeat: `{"tokens_per_second": (2700, 2650, ...)}`.
    """

    base: str
    arm: str
    task: str
    params_total: int | None = None
    params_trainable: int | None = None
    stored_bytes: int | None = None  # what must be kept per adapted task
    optimizer_bytes: int | None = None
    device: str | None = None
    precision: str | None = None
    train_seconds: float | None = None  # one run at the selected rate: tokens over profiled tokens per second
    tuning_seconds: float | None = None  # all rates and seeds, along one sequence
    predict_seconds: float | None = None  # the test items once: predict_tokens over predict_tokens_per_second
    train_tokens: int | None = None
    tokens_per_second: float | None = None  # in training
    predict_tokens: int | None = None
    predict_tokens_per_second: float | None = None
    peak_host_bytes: int | None = None  # over the baseline before the model was loaded
    peak_device_allocated_bytes: int | None = None
    peak_device_reserved_bytes: int | None = None
    swap_seconds: float | None = None  # one task's part out of the model in memory, another's in
    repeats: Mapping[str, tuple[float | None, ...]] = Field(default_factory=dict)  # None = that repeat failed


class Finding(Row):
    """The answer to one contrast of a hypothesis, or (contrast = "") to a hypothesis as a whole."""

    hypothesis: str
    statement: str = ""
    contrast: str = ""  # readable: "full - lora-r8: score on pydoc-chat (nats-per-token)"
    verdict: Verdict
    reason: str = ""  # why there is no verdict, or what bounds it: caveats only, the numbers are in the fields below
    estimate: float | None = None  # left minus right, in `unit`; left over right where `unit` is "ratio"
    low: float | None = None  # the interval that decided: Holm-adjusted; of two one-sided tests where the verdict is EQUIVALENT
    high: float | None = None
    confidence: float | None = None  # of the adjusted interval
    p_value: float | None = None
    p_adjusted: float | None = None
    family: str | None = None
    margin: float | None = None
    expect: str = ""
    unit: str = ""
    primary: bool = True
    n_seeds: int | None = None
    n_clusters: int | None = None
    n_repeats: int | None = None  # of the profile, for measured costs
    detectable: float | None = None  # the effect this comparison would have seen with 80 % power
    pairing_correlation: float | None = None  # of both arms' values, over all runs and clusters
    pairing_gain: float | None = None  # standard error of independent samples, over that of the pairs
    exact: bool = False  # without sampling error: a count of parameters or bytes, or 0 by construction
    by_construction: bool = False  # exactly 0, because the answering weights are untouched
    settling: str = ""  # what would settle an open comparison, with a power of 80 %
    more_seeds: int | None = None  # the seeds that would; None = not known, or seeds are not what is missing
    look: int = 1
    exploratory: bool = False  # stated after results that it speaks of were seen


class Measure(Row):
    """A quantity made from the score table, such as plasticity or forgetting of one arm.

    `score` is the table itself, R[phase, task]; `task` is empty for a mean over tasks. `by_construction`: exactly 0
    (a retention: exactly 1), because the same weights answered both times; there is no interval then.
    """

    measure: str
    base: str
    arm: str
    sequence: str
    phase: int
    task: str
    metric: str
    routing: Routing = "latest"
    value: float | None
    low: float | None = None
    high: float | None = None
    n_seeds: int | None = None
    n_clusters: int | None = None
    unit: str = ""
    higher_is_better: bool | None = None
    by_construction: bool = False
    note: str = ""


class Selection(Row):
    """How the learning rate of one arm and seed was chosen."""

    base: str
    arm: str
    sequence: str
    phase: int
    task: str
    seed: int
    learning_rates: tuple[float, ...]
    metric: str = NATS_PER_TOKEN  # by which it was chosen
    validation: tuple[float | None, ...]  # mean validation score at each rate over the other seeds
    chosen: float | None
    at_edge: bool = False
    chosen_by_primary: float | None = None  # what the task's primary metric and the loss would have chosen
    chosen_by_loss: float | None = None


class WeightChange(Row):
    """How far the weights of one part of a base have moved in one cell: ||W - W0|| / ||W0|| (Frobenius)."""

    base: str
    arm: str
    sequence: str
    seed: int
    phase: int
    part: str  # "whole", a block such as "transformer.h.3", or "outside blocks"
    relative_change: float


class AuditFinding(Row):
    """What a rule found."""

    rule: str
    severity: Literal["note", "warning", "threat"]
    message: str
    where: str = ""
    accepted: bool = False


class Assay(Row):
    """Whether the trial could have seen an effect."""

    positive_control: Literal["seen", "not seen", "not measured", "not planned"] = "not planned"
    positive_text: str = ""
    aa_text: str = ""
    aa_compared: str = ""  # "full at 3e-4 minus full, repeated at its centre rate, on docs"
    aa_unit: str = ""
    aa_estimate: float | None = None  # the A/A difference: what no effect looks like here
    aa_low: float | None = None
    aa_high: float | None = None


class LookRow(Row):
    """Which reading of the results this is: each of K looks is judged at the family's error rate over K."""

    number: int
    num_looks: int
    num_seeds: int
    is_declared: bool
    alpha: float
    caveat: str = ""


class Recommendation(Row):
    """Which arm to choose, or why that cannot be told yet."""

    arm: str | None
    text: str
    others: tuple[str, ...] = ()  # why not each of the other arms, in sentences
    runners_up: tuple[str, ...] = ()


class Quote(Row):
    """A figure of ours, beside a published one."""

    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None  # of the interval
    unit: str = ""
    n_seeds: int | None = None
    note: str = ""


Standing = Literal["survives", "does not survive", "undecided", "cannot be tested at this scale", "not measured"]


class Claim(Row):
    """A published claim, one flaw of the design behind it, and what became of the claim here without that flaw."""

    claim: str  # in one sentence
    published: str = "no figure published"  # the figure as it was given
    flaw: str = ""  # of the design that gave it, which `mended` is without
    as_published: Quote | None = None  # ours, with the flaw
    mended: Quote | None = None  # ours, without it
    worth: float | None = None  # of the flaw: as published minus mended, where both are in one unit
    standing: Standing
    note: str = ""


class Results(Row):
    """The whole of `results.json`."""

    schema_version: int = RESULTS_SCHEMA
    study: str
    question: str = ""
    scale: str
    size: str
    status: Literal["complete", "partial", "running"]
    arms: Mapping[str, str] = Field(default_factory=dict)  # name -> what people read, in order; controls included
    roles: Mapping[str, str] = Field(default_factory=dict)  # name -> "arm", "base", "floor", "positive control", "A/A"
    factors: Mapping[str, Mapping[str, int | float | str]] = Field(default_factory=dict)  # arm -> factor -> level
    scores: tuple[Score, ...] = ()
    costs: tuple[Cost, ...] = ()
    findings: tuple[Finding, ...] = ()
    measures: tuple[Measure, ...] = ()
    tuning: tuple[Selection, ...] = ()
    audit: tuple[AuditFinding, ...] = ()
    look: LookRow | None = None
    assay: Assay = Assay()
    recommendation: Recommendation | None = None
    weight_changes: tuple[WeightChange, ...] = ()
    claims: tuple[Claim, ...] = ()
    examples: tuple[Example, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    provenance: Mapping[str, Any] = Field(default_factory=dict)
