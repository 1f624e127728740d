"""What a study in code is, built in or in a file of one's own: a function of scale and size that returns a `Study`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from finetrial.catalog import name_of
from finetrial.errors import UserError, unknown
from finetrial.spec.study import Study

EMBEDDED, FULL = "embedded", "full"
AS_PUBLISHED_SCALE = EMBEDDED  # the only one at which studies are repeated as they were published


class BuiltIn(ABC):
    """A study that comes with finetrial, or that `finetrial run FILE.py` finds. The file name is its registered name."""

    summary: ClassVar[str]  # one line
    sizes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        EMBEDDED: ("demo", "standard", "thorough"), FULL: ("published-budget", "standard", "thorough")}  # of each scale
    plugins: ClassVar[tuple[str, ...]] = ()  # files beside this one that it needs

    @abstractmethod
    def make(self, scale: str, size: str) -> Study:
        """The study, for a scale and a size that exist."""

    def make_as_published(self) -> Study:
        """The published arms with all their flaws, the same with one flaw mended at a time, and the mended arms, at the
        embedded scale. `accept_threats` names the threats to validity that the published design has, and no others.

        Raises UserError where nothing was published.
        """
        raise UserError(f"{name_of(type(self))} repeats no published study", "run it without --as-published")

    def study(self, scale: str = "embedded", size: str = "standard") -> Study:
        """The study at a scale and size. Raises UserError for one that does not exist."""
        if scale not in self.sizes:
            raise UserError(unknown("scale", scale, list(self.sizes)))
        if size not in self.sizes[scale]:
            raise UserError(unknown(f"size at the scale {scale}", size, list(self.sizes[scale])))
        return self._with_plugins(self.make(scale, size))

    def as_published(self, scale: str = AS_PUBLISHED_SCALE) -> Study:
        """The study repeated as it was published, called `NAME-as-published`. Raises UserError for another scale."""
        if scale != AS_PUBLISHED_SCALE:
            raise UserError(f"--as-published is there at the scale {AS_PUBLISHED_SCALE}, not at {scale}",
                            "leave --scale out")
        return self._with_plugins(self.make_as_published())

    def _with_plugins(self, made: Study) -> Study:
        """Workers and reports find there what they need."""
        return made.model_copy(update={"plugins": tuple(dict.fromkeys((*self.plugins, *made.plugins)))})
