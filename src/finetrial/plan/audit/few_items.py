"""Too few test items: what one of them does is read as what the task does.

Items of one cluster (a file, a conversation) are not independent, so clusters count. Intervals were checked by
simulation down to 20 clusters (docs/audit.md); the studies that come with finetrial use at least 150 items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finetrial.plan.audit.base import Found, Rule
from finetrial.plan.audit.views import Prepared
from finetrial.spec.study import Study

ITEMS = 50
CLUSTERS = 20


class FewItems(Rule):
    """Says what the number of test items can show."""

    summary: ClassVar[str] = "too few test items, or items in too few clusters"

    def check(self, study: Study) -> Iterator[Found]:
        """A warning for each task with fewer than 50 test items."""
        for use in study.tasks:
            if use.evaluate and use.num_test < ITEMS:
                yield Found("warning", f"{use.name} is tested on {use.num_test} items, so the interval speaks of little "
                                       f"but these; give at least {ITEMS}, better 150", f"tasks.{use.name}.num_test")

    def check_data(self, study: Study, data: Prepared) -> Iterator[Found]:
        """A warning for each task whose test items come from fewer than 20 clusters."""
        for task in (task for task in data.once if task.use.evaluate):
            items, clusters = len(task.rows("test")), len(set(task.rows("test").clusters))
            if items >= ITEMS and clusters < CLUSTERS:
                yield Found("warning", f"the {items} test items of {task.use.name} come from {clusters} clusters "
                                       f"(files, conversations); fewer than {CLUSTERS} make intervals too narrow",
                            f"tasks.{task.use.name}")
