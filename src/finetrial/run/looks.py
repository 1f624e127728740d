"""Which numbers of seeds complete results were seen at: kept in `run.json`, for the error rate of the next look.

Only readings of the same question count. Seeds, declared looks, limits of the recommendation and notes may change; with
anything else changed it is another question, and its first look is a first look.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetrial.fingerprint import key_of
from finetrial.run.disk import replace_text
from finetrial.spec.study import Study

FIELD = "looks"
NOT_THE_QUESTION = ("seeds", "looks", "limits", "notes")


class Looks:
    """The looks that a run's folder remembers."""

    def __init__(self, path: Path, study: Study) -> None:
        self._path = path
        content = {name: value for name, value in study.identity().items() if name not in NOT_THE_QUESTION}
        self._question = key_of(content)

    @property
    def earlier(self) -> tuple[int, ...]:
        """Numbers of seeds, in order of size."""
        return tuple(sorted(self._read().get(self._question, ())))

    def remember(self, num_seeds: int) -> None:
        """Complete results at so many seeds are seen from now on."""
        if num_seeds not in self.earlier:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            content[FIELD] = {**self._read(), self._question: [*self.earlier, num_seeds]}
            replace_text(self._path, json.dumps(content, indent=1) + "\n")

    def as_json(self) -> dict[str, Any]:
        """What `run.json` holds of them; nothing before the first look."""
        kept = self._read()
        return {FIELD: kept} if kept else {}

    def _read(self) -> Mapping[str, list[int]]:
        try:
            found: Mapping[str, list[int]] = json.loads(self._path.read_text(encoding="utf-8")).get(FIELD, {})
        except OSError:
            return {}
        return found
