"""What a built-in study is: a function of scale and size that returns a `Study`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from finetrial.errors import UserError, unknown
from finetrial.spec.study import Study


class BuiltIn(ABC):
    """A study that comes with finetrial. The file name is its registered name."""

    summary: ClassVar[str]  # one line
    scales: ClassVar[tuple[str, ...]] = ("embedded",)
    sizes: ClassVar[tuple[str, ...]] = ("demo", "standard", "thorough")

    @abstractmethod
    def make(self, scale: str, size: str) -> Study:
        """The study, for a scale and a size that exist."""

    def study(self, scale: str = "embedded", size: str = "standard") -> Study:
        """The study at a scale and size. Raises UserError for one that does not exist."""
        if scale not in self.scales:
            raise UserError(unknown("scale", scale, self.scales))
        if size not in self.sizes:
            raise UserError(unknown("size", size, self.sizes))
        return self.make(scale, size)
