"""Whether this machine may run the programs that a plan generates: asked before hours of training, not after them."""

from __future__ import annotations

from collections.abc import Iterable

from finetrial.sandbox import probe
from finetrial.sandbox.languages import runtime
from finetrial.stages.base import Stage

EXECUTE = "execute"


def check_programs(stages: Iterable[Stage], *, allow_unsandboxed: bool) -> None:
    """Raises SandboxError where a needed layer is missing, unless `allow_unsandboxed`, and MissingPackage without Node.

    A plan that runs no programs needs nothing.
    """
    languages = {str(stage.spec["language"]) for stage in stages if stage.kind == EXECUTE}
    for language in sorted(languages):
        runtime(language)
    if languages and not allow_unsandboxed:
        probe().require()


def missing_layers() -> tuple[str, ...]:
    """What must hold for generated code and does not on this machine; empty = it runs within the sandbox."""
    return probe().missing
