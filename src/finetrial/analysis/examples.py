"""Outputs for people to read: which items are shown, picked by rule, and how every metric is spread over items.

Two arms are compared: those of the first score contrast on the task that both wrote outputs for, else the study's
first arm and the untouched base. Their items are ranked by the difference of the primary metric, mean over seeds; the
best, the middle and the worst are shown, and some whose choice no result can sway: those with the smallest digests of
their ids. All arms are shown on the same items, each at its first seed, and the floors. What was written under LATEST routing, after
the last phase of each of the study's sequences, is shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np

from finetrial.analysis.loading import is_fixed
from finetrial.analysis.naming import roles
from finetrial.analysis.trial import Trial
from finetrial.records.outputs import Distribution, Example, Written
from finetrial.records.table import Floats, Outputs
from finetrial.spec.hypothesis import SCORE
from finetrial.spec.study import BASE_ARM

NUM_RANKED, NUM_RANDOM = 4, 8  # shown of each of best, median and worst; shown at random
QUANTILES = np.linspace(0.0, 1.0, 21)
Chosen = Literal["best", "median", "worst", "random"]


@dataclass(frozen=True)
class _Page:
    """Where outputs are compared: everything but the arm and the seed."""

    base: str
    sequence: str
    phase: int
    task: str


_Arms = dict[str, dict[int | None, Outputs]]  # arm -> seed -> what it wrote


def example_rows(trial: Trial) -> Iterator[Example]:
    """Chosen items with what every arm wrote, task by task."""
    for page, written in _pages(trial):
        yield from _examples(trial, page, written)


def distribution_rows(trial: Trial) -> Iterator[Distribution]:
    """Quantiles over items of every metric of every arm, seeds together."""
    for page, written in _pages(trial):
        for arm, of_seeds in written.items():
            for metric in next(iter(of_seeds.values())).item_scores:
                scores = np.concatenate([np.asarray(one.item_scores.get(metric, ()), np.float64)
                                         for one in of_seeds.values()])
                known = scores[np.isfinite(scores)]
                if len(known):
                    yield Distribution(
                        base=page.base, arm=arm, sequence=page.sequence, phase=0 if is_fixed(arm) else page.phase,
                        task=page.task, metric=metric, n=len(known), n_missing=len(scores) - len(known),
                        num_distinct=len(np.unique(known)),
                        quantiles=tuple(map(float, np.quantile(known, QUANTILES))))


def _pages(trial: Trial) -> Iterator[tuple[_Page, _Arms]]:
    """Every page with the arms that wrote something for it, in the order of the report; the untouched on all pages."""
    pages: dict[_Page, _Arms] = defaultdict(lambda: defaultdict(dict))
    untouched: dict[tuple[str, str], _Arms] = defaultdict(lambda: defaultdict(dict))
    last = {path.name: len(path.tasks) for path in trial.study.paths}
    for one in trial.table.outputs:
        cell = one.cell
        if is_fixed(cell.arm):
            untouched[cell.base, one.task][cell.arm].setdefault(None, one)
        elif one.routing == "latest" and one.phase == last.get(cell.sequence):
            pages[_Page(cell.base, cell.sequence, one.phase, one.task)][cell.arm][cell.seed] = one
    for page, arms in pages.items():
        both = {**untouched[page.base, page.task], **arms}
        yield page, {name: both[name] for name in roles(trial.study, both) if name in both}


def _examples(trial: Trial, page: _Page, written: _Arms) -> Iterator[Example]:
    left, right = _compared(trial, page, written)
    metric = trial.primary(page.task)
    shown = next(iter(written[left].values()))
    differences = _differences(trial, written[left], written[right], metric)
    for chosen, place in _picked(shown, differences):
        item = shown.items.ids[place]
        difference = differences[place] if differences is not None else np.nan
        yield Example(
            base=page.base, sequence=page.sequence, phase=page.phase, task=page.task, item=item, chosen=chosen,
            left=left, right=right, metric=metric, difference=float(difference) if np.isfinite(difference) else None,
            input=shown.inputs[place], reference=shown.references[place],
            written=tuple(_written(arm, of_seeds, item, metric) for arm, of_seeds in written.items()))


def _compared(trial: Trial, page: _Page, written: Mapping[str, object]) -> tuple[str, str]:
    """The two arms by whose difference items are ranked."""
    for hypothesis in trial.study.hypotheses:
        for contrast in hypothesis.contrasts:
            if contrast.quantity == SCORE and contrast.task == page.task and {contrast.left,
                                                                            contrast.right} <= set(written):
                return contrast.left, contrast.right
    first = next((arm.name for arm in trial.study.arms if arm.name in written), next(iter(written)))
    return first, BASE_ARM if BASE_ARM in written else next(iter(written))


def _differences(trial: Trial, left: Mapping[int | None, Outputs], right: Mapping[int | None, Outputs],
                 metric: str) -> Floats | None:
    """Left minus right item by item, mean over seeds, higher is better, [n]; None without item scores."""
    means = []
    for of_seeds in (left, right):
        values = [np.asarray(one.item_scores[metric], np.float64) for one in of_seeds.values()
                  if metric in one.item_scores]
        if not values or len({one.items.ids for one in of_seeds.values()}) > 1:
            return None
        means.append(np.mean(values, axis=0))
    if len(means[0]) != len(means[1]):
        return None
    sign = trial.table.metrics[metric].sign if metric in trial.table.metrics else 1.0
    difference: Floats = sign * (means[0] - means[1])
    return difference


def _picked(shown: Outputs, differences: Floats | None) -> Iterator[tuple[Chosen, int]]:
    """Which items, and why; none twice."""
    taken: set[int] = set()
    if differences is not None:
        ranked = [int(at) for at in np.argsort(-differences, kind="stable") if np.isfinite(differences[at])]
        middle = max(0, (len(ranked) - NUM_RANKED) // 2)
        groups: dict[Chosen, Sequence[int]] = {"best": ranked[:NUM_RANKED], "worst": ranked[::-1][:NUM_RANKED],
                                               "median": ranked[middle:middle + NUM_RANKED]}
        for chosen in ("best", "median", "worst"):
            for at in groups[chosen]:
                if at not in taken:
                    taken.add(at)
                    yield chosen, at
    by_digest = sorted(range(len(shown.items)), key=lambda at: sha256(shown.items.ids[at].encode()).digest())
    for at in [at for at in by_digest if at not in taken][:NUM_RANDOM]:
        yield "random", at


def _written(arm: str, of_seeds: Mapping[int | None, Outputs], item: str, metric: str) -> Written:
    """What an arm wrote for an item at its first seed, and its score."""
    seed = min(of_seeds, key=lambda one: -1 if one is None else one)
    found = of_seeds[seed]
    if item not in found.items.ids:
        return Written(arm=arm, seed=seed, output=None)
    place = found.items.ids.index(item)
    scores = found.item_scores.get(metric)
    score = float(scores[place]) if scores is not None and np.isfinite(scores[place]) else None
    return Written(arm=arm, seed=seed, output=found.outputs[place], score=score)
