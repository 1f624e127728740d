"""What a target name matches: something, and only what was meant.

A name that matches no layer is refused when a study is planned. Here: methods whose parameters cannot be counted before
the run, names that match layers of two kinds (`c_proj` is the attention's and the MLP's), and trained parameters that
are not as many as the plan said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.models.shapes import linear_shapes, matching
from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import BaseFolder, Planned, Recorded
from finetrial.spec.arm import Arm
from finetrial.spec.study import Study


class TargetPatterns(Rule):
    """Every target names layers of one kind, and what was planned is what was trained."""

    summary: ClassVar[str] = "a target name matches nothing, or more than it seems to"

    def check_plan(self, study: Study, plan: Planned) -> Iterator[Found]:
        """A threat for a name that matches nothing; a warning for one that matches several kinds of layers."""
        for base in plan.bases:
            shapes = linear_shapes(base.config)
            for arm in study.arms if shapes is not None else ():
                for target in _named_targets(arm):
                    found = matching(shapes or {}, target)
                    kinds = sorted({_place(name) for name in found})
                    if not found:
                        yield Found("threat", f"{arm.name}: the target {target!r} matches no layer of {base.name}, so "
                                              "less is trained than the arm says", f"arms.{arm.name}")
                    elif len(kinds) > 1:
                        yield Found("warning", f"{arm.name}: the target {target!r} matches layers of {' and '.join(kinds)} "
                                               f"in {base.name} ({len(found)} layers); name one as "
                                               f"{kinds[0]}.{target} if only that is meant", f"arms.{arm.name}")

    def check_records(self, study: Study, records: Recorded) -> Iterator[Found]:
        """A threat where an arm trained another number of parameters than its configuration says."""
        folders = {base.name: base for base in records.bases}
        for row in records.table.costs:
            arm = next((arm for arm in study.arms if arm.name == row.arm), None)
            planned = _planned(arm, row.task, folders[row.base]) if arm and row.base in folders else None
            if planned is not None and row.params_trainable is not None and planned != row.params_trainable:
                yield Found("threat", f"{row.arm} trained {row.params_trainable:,} parameters on {row.task}, and its "
                                      f"targets come to {planned:,}", f"arms.{row.arm}")


def _named_targets(arm: Arm) -> list[str]:
    """The names of layers that an arm's methods give, each once."""
    methods = [component.method for components in arm.components.values() for component in components]
    return list(dict.fromkeys(target for method in methods
                              if isinstance(targets := getattr(method, "targets", None), tuple) for target in targets))


def _place(layer: str) -> str:
    """What a layer is part of, such as `mlp`; T5's kinds of attention count as one."""
    parent = layer.split(".")[-2] if "." in layer else layer
    return "attention" if parent.endswith("Attention") else parent


def _planned(arm: Arm, task: str, base: BaseFolder) -> int | None:
    """The parameters that a phase should train; None where the configuration does not tell."""
    counts = [method.count_trainable(dict(base.config)) for method in arm.trained_methods(task)]
    return sum(count or 0 for count in counts) if counts and None not in counts else None
