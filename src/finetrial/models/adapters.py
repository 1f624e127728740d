"""Adapters of peft in a loaded model: put in, saved and loaded, switched, folded into the base, taken out again.

An adapter has a name, unique in the model. One layer may hold several plain LoRA adapters, whose deltas add up; any
other kind is alone on its layers, because what it does depends on what the layer below computes. Peft keeps one list
of active adapters for the whole model; here every adapter is switched by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from finetrial.errors import ModelError
from finetrial.models import blocks
from finetrial.models.insert import mark_of
from finetrial.models.origin import BaseNames, base_linears
from finetrial.models.params import fill

PREFIX = "base_model.model."  # of keys in peft's files
WEIGHTS = "adapter_model.safetensors"
_ALONE = "finetrial_alone"  # on peft's layer: whether its adapter tolerates no other
_READ = "finetrial_weight_read"  # on the base's layer: an adapter computes with its weight, not only its product


class Adapter:
    """One adapter on the layers `chosen` (names in the base's numbering).

    `config` is peft's, as it would be written for the base by itself. `reads` says that the adapter computes with the
    base's weights themselves (as DoRA does with their norms), so that they must stay in fp32 in mixed precision. Draws
    from torch's global generator. Raises ModelError where peft refuses, or where a layer already holds an adapter and
    one of the two must be alone.
    """

    def __init__(self, model: Any, config: Any, name: str, chosen: Sequence[str], *, alone: bool,
                 reads: bool = False) -> None:
        if "." in name:
            raise ModelError(f"the slot {name!r} has a dot, which the name of an adapter must not have",
                             "rename the slot")
        self.model, self.config, self.name = model, config, f"<{name}>"  # brackets: peft searches names for it
        places = base_linears(model)
        paths = {layer: places[layer][0] for layer in chosen}
        _refuse_conflicts(model, set(paths.values()), self.name, alone)
        self.tuner = _inject(model, _placed(model, config, paths.values()), self.name)
        for layer in self._layers():
            setattr(layer, _ALONE, alone)
            setattr(layer.get_base_layer(), _READ, reads)
        names = BaseNames(model)
        self._trained = {names(path) for path, parameter in self._tensors(model.named_parameters())
                         if parameter.requires_grad}
        adapted = {names(path) for path, _ in self._places()}
        assert adapted == set(chosen), f"peft adapted {sorted(map(str, adapted))}, chosen were {sorted(chosen)}"

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by their names in the base's numbering."""
        names = BaseNames(self.model)
        return {name: parameter for path, parameter in self._tensors(self.model.named_parameters())
                if (name := str(names(path))) in self._trained}

    def weights(self) -> dict[str, Tensor]:
        """What peft stores of the adapter, by peft's keys. The tensors are the model's own."""
        from peft import get_peft_model_state_dict

        self.model.peft_config = {self.name: self.config}
        try:
            kept = get_peft_model_state_dict(self.model, dict(self._tensors(self.model.state_dict().items())),
                                             adapter_name=self.name, save_embedding_layers=False)
        finally:
            del self.model.peft_config
        names = BaseNames(self.model)
        return {f"{PREFIX}{names(path)}": tensor for path, tensor in kept.items()}

    def save(self, folder: Path) -> None:
        """Peft's format: adapter_config.json and adapter_model.safetensors, for the base by itself."""
        write(folder, self.weights(), self.config)

    def load(self, folder: Path) -> None:
        """Read a file in peft's format. Raises ModelError if it does not fit."""
        fill(self.weights(), folder / WEIGHTS, "load it with the options that it was trained with")

    def set_active(self, active: bool) -> None:
        """Switch the adapter on or off; the others stay as they are."""
        for layer in self._layers():
            others = [name for name in layer.active_adapters if name != self.name]
            _activate(layer, [*others, self.name] if active else others)

    def fold(self) -> None:
        """Add the adapter's effect to the base's weights, and take it out. Raises ModelError where peft cannot."""
        self.set_active(True)
        for layer in self._layers():
            try:
                layer.merge(safe_merge=True, adapter_names=[self.name])
            except (NotImplementedError, ValueError, AttributeError) as error:
                raise ModelError(f"the adapter {self.name} cannot be folded into the base: {error}",
                                 "keep it as an adapter, or use a method that can be merged") from error
            if self.name in layer.merged_adapters:
                layer.merged_adapters.remove(self.name)
        self._take_out()

    def unload(self) -> None:
        """Take the adapter out; the base is what it was."""
        self._take_out()

    def _take_out(self) -> None:
        """Remove it from peft's layers; one that holds no other adapter is bare again."""
        for path, layer in list(self._places()):
            _activate(layer, [name for name in layer.active_adapters if name != self.name])
            with _same_gradients(layer):
                layer.delete_adapter(self.name)
            if getattr(layer, _ALONE) or not _adapters_on(layer):
                delattr(layer.get_base_layer(), _READ)
                parent, _, last = path.rpartition(".")
                setattr(self.model.get_submodule(parent), last, layer.get_base_layer())

    def base_layers(self) -> dict[str, tuple[Any, Any]]:
        """The adapted layers by their names in the base: (peft's layer, the base's layer inside)."""
        names = BaseNames(self.model)
        return {str(names(path)): (layer, layer.get_base_layer()) for path, layer in self._places()}

    def _places(self) -> Iterator[tuple[str, Any]]:
        return ((path, layer) for path, layer in _wrappers(self.model) if self.name in _adapters_on(layer))

    def _layers(self) -> list[Any]:
        return [layer for _, layer in self._places()]

    def _tensors(self, named: Any) -> Iterator[tuple[str, Any]]:
        """Those that carry the adapter's name as a step of their path."""
        return ((path, tensor) for path, tensor in named if self.name in path.split("."))


def weight_is_read(layer: nn.Module) -> bool:
    """Whether an adapter computes with a base layer's weight itself, so that its type must not change."""
    return bool(getattr(layer, _READ, False))


def adapter_modules(model: nn.Module) -> set[nn.Module]:
    """Every module that belongs to an adapter, and not to the base."""
    return {module for _, layer in _wrappers(model) for name, child in layer.named_children() if name != "base_layer"
            for module in child.modules()}


def write(folder: Path, weights: Mapping[str, Tensor], config: Any) -> None:
    """An adapter in peft's format."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}, folder / WEIGHTS,
              metadata={"format": "pt"})
    config.save_pretrained(folder)


def _wrappers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((path, module) for path, module in model.named_modules() if isinstance(module, BaseTunerLayer))


def _adapters_on(layer: Any) -> set[str]:
    return {name for holder in (*layer.adapter_layer_names, *layer.other_param_names)
            for name in (getattr(layer, holder).keys() if hasattr(getattr(layer, holder), "keys") else ())}


def _refuse_conflicts(model: nn.Module, wanted: set[str], name: str, alone: bool) -> None:
    for path, layer in _wrappers(model):
        others = sorted(_adapters_on(layer))
        if path in wanted and (alone or getattr(layer, _ALONE)):
            raise ModelError(f"{path} already holds the adapter {others[0]}, and {name} is to adapt it too; only plain "
                             "LoRA adapters can share a layer", "give one of them other targets, or merge one first")


def _placed(model: nn.Module, config: Any, paths: Iterable[str]) -> Any:
    """A copy of the configuration; with full paths as targets once blocks are inserted, whose layers have the same
    names as the base's."""
    config = copy.deepcopy(config)
    if any(mark_of(block) for stack in blocks.stacks(model) for block in stack):
        config.target_modules = set(paths)
    return config


def _inject(model: Any, config: Any, name: str) -> Any:
    """Peft's tuner, after it put the adapter in. Which adapters are active elsewhere stays as it was."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    before = {path: list(layer.active_adapters) for path, layer in _wrappers(model)}
    try:
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, adapter_name=name)
    except (ValueError, TypeError, NotImplementedError, ImportError, RuntimeError) as error:
        raise ModelError(f"peft's {config.peft_type.value} cannot adapt this {model.config.model_type} model: {error}",
                         "choose other targets or options, or another method") from error
    del model.peft_config
    for path, layer in _wrappers(model):
        _activate(layer, [*before.get(path, []), *([name] if name in _adapters_on(layer) else [])])
    return tuner


def _activate(layer: Any, names: list[str]) -> None:
    with _same_gradients(layer):
        layer.set_adapter(names)


@contextmanager
def _same_gradients(layer: nn.Module) -> Iterator[None]:
    """Peft sets `requires_grad` as it switches; who is trained is not its business here."""
    before = [(parameter, parameter.requires_grad) for parameter in layer.parameters()]
    yield
    for parameter, trained in before:
        parameter.requires_grad_(trained)
