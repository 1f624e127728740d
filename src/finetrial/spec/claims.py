"""Published claims: what an earlier report of the same study said, and how it is read here with and without its flaws.

A claim is tested, not aimed at. `as_published` is read the way the report did it, flaws and all, on one seed; `mended`
is the same comparison without the flaw, judged over all seeds: its `expect` is the direction that was claimed. Claims
change no stage: like hypotheses, they only say what is read.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from finetrial.spec.hypothesis import Contrast
from finetrial.spec.model import Frozen

NO_FIGURE = "no figure published"
AS_PUBLISHED = "-as-published"  # how the name of a built-in study ends that is repeated as it was published


class PublishedClaim(Frozen):
    """One sentence of a report, the figure it gave, and one flaw of the design behind it.

    A claim behind which lie several flaws is listed once for each, and once with all of them mended. One that cannot be
    read here says why (`untestable`) in the place of `mended`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")
    claim: str
    published: str = NO_FIGURE
    flaw: str = ""  # in words; what `mended` is without
    as_published: Contrast | None = None
    seed: int | None = 0  # the one that `as_published` is read from; None = all
    mended: Contrast | None = None
    untestable: str = ""  # why no contrast of this study can decide it
    note: str = ""

    @model_validator(mode="after")
    def _one_of(self) -> PublishedClaim:
        if (self.mended is None) == (not self.untestable):
            raise ValueError(f"claim {self.name}: give `mended`, the contrast that decides it, or say in `untestable` "
                             "why there is none")
        return self

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """What is read of the study's arms."""
        return tuple(contrast for contrast in (self.as_published, self.mended) if contrast is not None)
