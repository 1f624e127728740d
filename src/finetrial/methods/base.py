"""What a method is: its options, and how it attaches trainable parameters to a model.

A method's fields are its options and belong to the identity. Attached to a model under a slot's name it becomes a
`Component`: the parameters it owns, and how they are saved and loaded. The training loop knows components only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Component(ABC):
    """A method attached to a model: what is trained, saved and loaded. `slot` names it in the arm."""

    def __init__(self, slot: str) -> None:
        self.slot = slot

    @abstractmethod
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The parameters that this component owns, by their name in the model, each once."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights to `folder` (created if absent) in a format that plain peft or transformers loads."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read weights written by `save` into the attached model. Raises ModelError if they do not fit."""

    def after_step(self, step: int) -> None:  # noqa: B027 (a method may offer it)
        """Called after each optimizer step."""

    def trainable_digest(self) -> str:
        """SHA-256 over the bytes of the owned parameters, in name order."""
        from finetrial.models.params import digest

        return digest(self.parameters())


class Method(BaseModel, ABC):
    """A way to adapt a base, as the study writes it. `version` is bumped when the same options mean something else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: ClassVar[int] = 1
    summary: ClassVar[str] = ""

    @property
    def kind(self) -> str:
        """The registered name: the name of the file that defines the method."""
        from finetrial.catalog import name_of

        return name_of(type(self))

    @abstractmethod
    def attach(self, model: PreTrainedModel, streams: Streams, slot: str) -> Component:
        """Attach to `model`, in place. Draws only from the stream `adapter/<slot>`.

        Raises ModelError if an option does not fit the model, naming the value and what the model has.
        """

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """The number of trained parameters for a model with this config.json, without torch; None if unknown."""
        return None
