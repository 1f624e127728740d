"""Running a plan: the store, the workers, the walk over the stages, the live view, and the trial as a whole.

The package can be called: `finetrial.run(study)` is `finetrial.api.run`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """This package, and what it is to be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `finetrial.api.run`."""
        from importlib import import_module

        return import_module("finetrial.api").run(*arguments, **options)


sys.modules[__name__].__class__ = _Package
