"""What a method is: its options, and how it attaches trainable parameters to a model.

A method's fields are its options and belong to the identity. Attached to a model under a slot's name it becomes a
`Component`: the parameters it owns, how they are saved and loaded, folded into the base, switched off or taken out.
The training loop knows components only. Names and files are in the base's own numbering (`models/origin.py`), so they
do not depend on what else is attached.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetrial.errors import ModelError
from finetrial.settings import Settings
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from finetrial.models.swap import Swap


def component_name(slot: str, instance: str = "") -> str:
    """`main`, or `main@2` for a further instance in the same slot: unique in a model."""
    return f"{slot}@{instance}" if instance else slot


def stream_of(slot: str, instance: str = "") -> str:
    """The random stream of an attachment: `adapter/main`, `adapter/main/2`."""
    return f"adapter/{slot}/{instance}" if instance else f"adapter/{slot}"


class Component(ABC):
    """A method attached to a model. `slot` names its place in the arm, `instance` tells several in one slot apart.

    After `merge` or `unload` it is gone from the model and must not be used any more.
    """

    def __init__(self, slot: str, instance: str = "") -> None:
        self.slot, self.instance = slot, instance

    @property
    def name(self) -> str:
        """Unique in the model: the slot, and the instance if there is one."""
        return component_name(self.slot, self.instance)

    @abstractmethod
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The parameters that this component owns, by their name in the base's numbering, each once."""

    def rewritten(self) -> Mapping[str, nn.Parameter]:
        """Parameters of the base that attaching has changed and that stay frozen; nobody else may train them."""
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights to `folder` (created if absent) in a format that plain peft or transformers loads."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read weights written by `save` into the attached model. Raises ModelError if they do not fit."""

    def merge(self) -> None:
        """Fold the weights into the base, in place and in fp32, and take everything else out.

        Afterwards the model is a plain transformers model that computes the same, up to rounding. Raises ModelError
        where the method cannot be folded, as one that does not define this.
        """
        raise self._cannot("be merged into the base", "merge")

    def unload(self) -> None:
        """Take everything out: the base is bit for bit what it was before attaching."""
        raise self._cannot("be taken out of the model", "unload")

    def set_active(self, active: bool) -> None:
        """Switch the effect off or on again, exactly. Switched off, the model computes what it would without."""
        raise self._cannot("be switched off", "set_active")

    def _cannot(self, what: str, method: str) -> ModelError:
        return ModelError(f"the method in slot {self.slot!r} ({type(self).__module__.rpartition('.')[2]}) cannot {what}",
                          f"define {method} on its component")

    def remember(self) -> None:  # noqa: B027 (only methods that train the base's own weights need it)
        """Keep a copy of the base's weights as they are now, if `unload` and `set_active` will need one."""

    def after_step(self, step: int) -> None:  # noqa: B027 (a method may offer it)
        """Called after each optimizer step (from 0), before the gradients are cleared."""

    def progress(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the parameters: tensors, numbers, strings, and lists and dicts of them."""
        return {}

    def resume(self, progress: Mapping[str, Any]) -> None:  # noqa: B027 (a method may offer it)
        """Go on from what `progress` gave."""

    def trainable_digest(self) -> str:
        """SHA-256 over the bytes of the owned parameters, in name order."""
        from finetrial.models.params import digest

        return digest(self.parameters())


class InPlace(Component):
    """A component that trains weights which the base has already; subclasses say which, and how they are stored."""

    def merge(self) -> None:
        """Nothing to do: the weights are the base's."""

    def remember(self) -> None:
        self._swap.remember(self.parameters())

    def unload(self) -> None:
        self._swap.restore(self.parameters())

    def set_active(self, active: bool) -> None:
        self._swap.set_active(self.parameters(), active)

    @functools.cached_property
    def _swap(self) -> Swap:
        from finetrial.models.swap import Swap

        return Swap(self.name)


class Method(Settings, ABC):
    """A way to adapt a base, as the study writes it. `version` is bumped when the same options mean something else."""

    version: ClassVar[int] = 1
    in_place: ClassVar[bool] = False  # its components are `InPlace`: they train weights that the base has, and add none
    stackable: ClassVar[bool] = False  # its components are `AdapterComponent`s of which several can share a pass
    summary: ClassVar[str] = ""
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)  # options that the conformance tests try

    @property
    def kind(self) -> str:
        """The registered name: the name of the file that defines the method."""
        from finetrial.catalog import name_of

        return name_of(type(self))

    @property
    def step_0(self) -> Literal["exact", "rounding", "other"]:
        """What the model computes before the first step: what the base does, exactly or up to rounding, or not that."""
        return "exact"

    @property
    def takes_quantized(self) -> bool:
        """Whether it can adapt a base whose matrices are held in 4 bits: then it neither trains nor rewrites them."""
        return False

    @property
    def takes_shards(self) -> bool:
        """Whether it can be trained by processes that hold a part of each parameter: its component has no `after_step`."""
        return True

    @abstractmethod
    def attach(self, model: PreTrainedModel, streams: Streams, slot: str, instance: str = "") -> Component:
        """Attach to `model`, in place. Draws only from the stream `adapter/<slot>[/<instance>]`.

        Raises ModelError if an option does not fit the model, naming the value and what the model has.
        """

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """The number of trained parameters for a model with this config.json, without torch; None if unknown."""
        return None
