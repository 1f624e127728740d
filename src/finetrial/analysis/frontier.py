"""Forgetting at matched plasticity: what each arm forgets once both have learned equally much.

An arm's points are its final states over the learning-rate grid, each with plasticity P (learned) and forgetting F,
and the untouched base, which is the state at rate 0: P = 0 and F = 0 exactly.
For each seed the frontier is chosen on validation by the other seeds: the states that no other state beats in both.
It is read on test: forgetting as an isotonic function of plasticity over those states (more learning never costs less; Barlow
et al. 1972, pool adjacent violators), interpolated linearly at P* between them and the base. P* is 90 % of the smaller arm's best mean plasticity, a
rule fixed before the run: which rate is best, validation tells; how much is learned there, test, where it is read.
Validation rows may be easier or harder than test rows, and a P* in their terms out of reach. Arms are paired over
seeds. Nothing is extrapolated: an arm whose points do not reach P* is not comparable there.

Shapes: S seeds, R learning rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

from finetrial.analysis.missing import NotMeasured
from finetrial.records.table import Floats

MATCHED_SHARE = 0.9


@dataclass(frozen=True)
class States:
    """The final states of one arm, all [S, R]; NaN where a run failed."""

    arm: str
    plasticity_val: Floats
    forgetting_val: Floats
    plasticity_test: Floats
    forgetting_test: Floats

    def finished(self) -> States:
        """Without the learning rates at which any seed failed. Raises NotMeasured if none is left."""
        parts = (self.plasticity_val, self.forgetting_val, self.plasticity_test, self.forgetting_test)
        keep = np.isfinite(np.stack(parts)).all(axis=(0, 1))
        if not keep.any():
            raise NotMeasured(f"{self.arm} has no learning rate at which every seed finished")
        return States(self.arm, *(part[:, keep] for part in parts))


@dataclass(frozen=True)
class Matched:
    """Forgetting of both arms at the plasticity `plasticity`, one value per seed, [S]."""

    plasticity: float
    left: Floats
    right: Floats


def match(left: States, right: States) -> Matched:
    """Forgetting at matched plasticity. Raises NotMeasured where the arms are not comparable."""
    arms = (left.finished(), right.finished())
    best = [float(arm.plasticity_test.mean(axis=0)[arm.plasticity_val.mean(axis=0).argmax()]) for arm in arms]
    target = MATCHED_SHARE * min(best)
    if target <= 0:
        loser = arms[best.index(min(best))].arm
        raise NotMeasured(f"not comparable: {loser} learns nothing (best mean plasticity {min(best):.3g})")
    values = [np.array([_read(arm, seed, target) for seed in range(len(arm.plasticity_val))]) for arm in arms]
    return Matched(target, values[0], values[1])


def on_frontier(plasticity: Floats, forgetting: Floats) -> NDArray[np.bool_]:
    """Which of R states no other beats: at least as much learned, no more forgotten, and one of them strictly."""
    learned = plasticity[:, np.newaxis] - plasticity[np.newaxis, :]  # [R, R]: of row minus of column
    forgot = forgetting[:, np.newaxis] - forgetting[np.newaxis, :]
    beats = (learned >= 0) & (forgot <= 0) & ((learned > 0) | (forgot < 0))
    return np.asarray(~beats.any(axis=0), dtype=np.bool_)


def _read(arm: States, seed: int, target: float) -> float:
    """Forgetting of one seed at plasticity `target`, on test."""
    others = np.arange(len(arm.plasticity_val)) != seed
    judges = others if others.any() else ~others
    keep = on_frontier(arm.plasticity_val[judges].mean(axis=0), arm.forgetting_val[judges].mean(axis=0))
    plasticity, forgetting = arm.plasticity_test[seed, keep], arm.forgetting_test[seed, keep]
    order = np.argsort(plasticity, kind="stable")
    plasticity, forgetting = plasticity[order], scipy.optimize.isotonic_regression(forgetting[order]).x
    base = int(np.searchsorted(plasticity, 0.0))  # exact, and not pooled: what is learned may help the old text
    plasticity, forgetting = np.insert(plasticity, base, 0.0), np.insert(forgetting, base, 0.0)
    if target > plasticity[-1]:
        raise NotMeasured(f"not comparable at P*={target:.3g}: arm {arm.arm} stops at P={plasticity[-1]:.3g}")
    return float(np.interp(target, plasticity, forgetting))
