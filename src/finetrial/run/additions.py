"""What more seeds changed: the new seeds' own cells, and what earlier seeds computed again.

A seed's learning rate is chosen by validation on the other seeds, so new seeds can move it; what comes after the moved
choice (later phases, outputs, losses on test items) is then computed for the seed anew, from its new rate.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetrial.records.results import Results
from finetrial.run.trial import Trial


def additions(before: Results, trial: Trial) -> Iterator[str]:
    """Lines: how many phases of new and of earlier seeds were trained, and each choice of a rate that moved."""
    known = {score.seed for score in before.scores if score.seed is not None}
    new = [seed for seed in trial.study.seeds if seed not in known]
    of_new, of_known = (sum(trial.trained.get(seed, 0) for seed in seeds) for seeds in (new, known))
    yield (f"seeds added: {' '.join(map(str, new)) or 'none'}; phases trained now: {of_new} of these, "
           f"{of_known} of the {len(known)} earlier seeds")
    chosen = {(row.base, row.arm, row.sequence, row.phase, row.seed): row.chosen for row in before.tuning}
    for row in trial.results.tuning:
        earlier = chosen.get((row.base, row.arm, row.sequence, row.phase, row.seed))
        if earlier is not None and row.chosen is not None and earlier != row.chosen:
            yield f"  moved: {row.arm}, phase {row.phase}, seed {row.seed}: {earlier:g} -> {row.chosen:g}"
