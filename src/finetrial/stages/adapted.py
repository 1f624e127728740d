"""A base with the components of a phase attached: what training, prediction and profiling all start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrial.spec.model import plugin_from
from finetrial.streams import Streams

if TYPE_CHECKING:
    from finetrial.methods.base import Component
    from finetrial.models.load import LoadedBase


@dataclass(frozen=True)
class Adapted:
    """A loaded base and its components, in order."""

    base: LoadedBase
    components: list[Component]


def adapt(spec: Mapping[str, Any], base_folder: str, *, weights: Path | None, fresh_from_carry: bool = False) -> Adapted:
    """Load the base, attach the components of `spec`, and read their weights from `weights/<slot>` if given.

    With `fresh_from_carry` (a phase that starts from a parent) a component whose carry is `fresh` keeps its own
    initialisation.
    """
    from finetrial.models import params
    from finetrial.models.load import load_base

    base = load_base(Path(base_folder), attention=spec["attention"])
    streams = streams_of(spec)
    components = []
    for written in spec["components"]:
        method = plugin_from("method", {k: v for k, v in written["method"].items() if k != "version"})
        component = method.attach(base.model, streams, written["slot"])
        if weights is not None and not (fresh_from_carry and written["carry"] == "fresh"):
            component.load(weights / written["slot"])
        components.append(component)
    params.own(base.model, components)  # what no component owns is frozen
    return Adapted(base, components)


def streams_of(spec: Mapping[str, Any]) -> Streams:
    """The random streams of a cell."""
    return Streams(spec["seed"], spec.get("replicate", ""))
