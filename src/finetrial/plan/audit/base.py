"""What an audit rule is: it looks at the study and says what threatens its validity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from finetrial.spec.study import Study


@dataclass(frozen=True)
class Found:
    """One finding. `threat`: the comparison is confounded; `warning`: it is weaker than it looks; `note`: to know."""

    severity: Literal["note", "warning", "threat"]
    message: str
    where: str = ""


class Rule(ABC):
    """A rule; its file's name is the name by which a threat is accepted."""

    @abstractmethod
    def check(self, study: Study) -> Iterator[Found]:
        """Everything this rule finds."""
