"""Bring what a study reads from the hub, before it is planned: bases and published data, each at a resolved commit.

What is here already asks no network. A fetch that breaks off goes on where it was: files that are complete stay in the
hub's own cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetrial.plan.bases import is_of_the_hub, resolve_base
from finetrial.spec.study import Study

if TYPE_CHECKING:
    from finetrial.tasks.sources.hub import Say


def fetch_study(study: Study, relative_to: Path | None = None, *, say: Say | None = None) -> dict[str, str]:
    """Fetch what is not here yet; returns where each base and task of the hub comes from, a line for each.

    `say` is told, in a line, of each file that is downloaded. Raises ModelError and DataError for what the hub cannot
    give: unknown names, gated repositories, no network.
    """
    found = {f"base {base.name}": resolve_base(base, relative_to, say=say).provenance
             for base in study.bases if is_of_the_hub(base, relative_to)}
    for use in study.tasks:
        origin = use.task.located(relative_to).fetch(say)
        if origin:
            found[f"task {use.name}"] = origin
    return found
