"""finetrial: controlled trials of ways to adapt a pretrained language model.

    import finetrial

    run = finetrial.run(finetrial.Study(...))        # docs/python.md
    run = finetrial.open_run("runs/perplexity-embedded-demo")
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Study", "open_run", "run"]

# Found when first asked for, so that `import finetrial` stays quick. `finetrial.run` is a package that can be called.
_LAZY = {"Study": "finetrial.spec.study", "open_run": "finetrial.api", "run": ""}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module("finetrial.run") if name == "run" else getattr(import_module(_LAZY[name]), name)
