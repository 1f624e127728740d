"""Test rows that the base was pretrained on: an arm may seem to learn what was there before.

A base made by `finetrial pretrain` says in its manifest which corpus it has read, and has read the `pretrain` split of
it. The split of a row follows from the name of its cluster, so that it can be checked without the corpus. What other
bases have read is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared, TaskData
from finetrial.spec.study import Study
from finetrial.tasks.splits import CORPUS_SHARES, hashed_split

CORPUS = "corpus_digest"


class SeenInPretraining(Rule):
    """No held-out row lies in a cluster that the base was pretrained on."""

    summary: ClassVar[str] = "held-out rows are in a bundled base's pretraining"

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """A threat for held-out rows in pretraining clusters; a warning where base and task are of two corpora."""
        from finetrial.tasks.sources.corpus import corpus_digest

        here = corpus_digest()
        for task in data.tasks:
            manifest, source = task.base.manifest, task.stage.spec.get("source")
            if manifest is None or CORPUS not in manifest or source not in (here, manifest[CORPUS]):
                continue
            for split in (split for split in ("val", "test") if split in task.splits):
                yield from _seen(task, split)
            if source != manifest[CORPUS]:
                yield Found("warning", f"{task.base.name} was pretrained on another version of the corpus than "
                                       f"{task.use.name} is made of; files may have changed their split in between; "
                                       "make the base again (finetrial pretrain), or install the corpus it names",
                            f"bases.{task.base.name}")
        for base in data.bases:
            if base.manifest is None:
                yield Found("note", f"what {base.name} was pretrained on is not known; test rows may be among it",
                            f"bases.{base.name}")


def _seen(task: TaskData, split: str) -> Iterator[Found]:
    rows = task.rows(split)
    seen = [at for at, cluster in enumerate(rows.clusters) if hashed_split(cluster, CORPUS_SHARES) == "pretrain"]
    if seen:
        yield Found("threat", f"{len(seen)} of {len(rows)} {split} rows of {task.use.name} are of clusters that "
                              f"{task.base.name} was pretrained on, such as {rows.clusters[seen[0]]}; leave them out",
                    f"tasks.{task.use.name}")
