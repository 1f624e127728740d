"""Any adapter of the peft library, by the name of its type and its own options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from finetrial.errors import ModelError, unknown
from finetrial.methods.base import Component, Method, component_name, stream_of
from finetrial.methods.lora import AdapterComponent
from finetrial.models.shapes import linear_shapes
from finetrial.models.targets import Targets, chosen, patterns
from finetrial.streams import Streams

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# What the study says elsewhere, or what would train or change more than the adapter.
_REFUSED: Mapping[str, str] = {
    "target_modules": "give `targets` instead",
    "target_parameters": "name layers in `targets`; bare parameters cannot be adapted",
    "exclude_modules": "name the wanted layers in `targets`",
    "layers_to_transform": "name the wanted layers in `targets`, as in 0.self_attn.q_proj",
    "layers_pattern": "name the wanted layers in `targets`",
    "modules_to_save": "add a component `unfreeze` in another slot",
    "bias": "biases belong to the base; add a component `unfreeze` in another slot",
    "trainable_token_indices": "add a component `unfreeze` with embeddings in another slot",
    "layer_replication": "add a component `layer` in another slot",
    "orth_reg_weight": "the regularisation is a term of the loss, and the training loop adds none",
    "save_projection": "the projections are drawn again from projection_prng_key",
    **{name: "it follows from the model" for name in ("task_type", "peft_type", "inference_mode", "fan_in_fan_out",
                                                      "base_model_name_or_path", "revision", "auto_mapping")}}
_RESIDUAL = ("pissa", "olora")  # initialisations that take their share out of the base
_PLAIN = (True, False, "gaussian", "orthogonal")
_EXACT = ("lora", "adalora", "delora", "glora", "gralora", "hira", "ia3", "loha", "lokr", "miss", "oft", "peanut", "psoft",
          "pvera", "randlora", "supertuning", "vera")
_ROUNDING = ("deft", "hra")  # they start from the base up to rounding
_READS = ("glora", "hira", "supertuning")  # they compute with the base's weights, as use_dora does
TYPES = (*_EXACT, *_ROUNDING, "fourierft")
_CONV1D = ("lora", "adalora", "deft", "fourierft", "gralora", "hira", "ia3", "pvera", "randlora", "vera")  # GPT-2's layers
# Keys, values and the second matrix of the MLP, as in the paper (Liu et al. 2022, arXiv 2205.05638) and in peft
_IA3: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gpt2": (("c_attn", "mlp.c_proj"), ("mlp.c_proj",)),
    "llama": (("k_proj", "v_proj", "down_proj"), ("down_proj",)),
    "gemma": (("k_proj", "v_proj", "down_proj"), ("down_proj",)),
    "mistral": (("k_proj", "v_proj", "down_proj"), ("down_proj",)),
    "t5": (("k", "v", "wo"), ("wo",))}


class Peft(Method):
    """`type` is peft's name of the adapter in small letters, `options` its configuration's own fields.

    The types are those of peft that go into single layers and come back from their file. lora is tested with use_dora,
    use_rslora, and init_lora_weights gaussian, orthogonal, pissa, pissa_niter_N and (not for GPT-2) olora. `targets` are
    those of `lora`; left out, they are the attention projections, and for ia3 those of its paper. For lora, alpha is
    twice the rank unless given.

    PiSSA and OLoRA leave the base with the rest of its weights: nobody else may train these meanwhile, and the adapter
    is stored as a LoRA of twice the rank on the untouched base. VeRA's fixed projections come from its option
    projection_prng_key (0), the same for every seed, and are not stored. AdaLoRA needs `total_step`, runs without the
    orthogonal regularisation of the paper, and is stored at its first rank with the masked directions zero.
    """

    summary: ClassVar[str] = "any adapter of the peft library"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {}, {"options": {"r": 4, "use_dora": True}}, {"options": {"r": 4, "init_lora_weights": "pissa"}},
        {"type": "ia3"}, {"type": "vera", "options": {"r": 16}},
        {"type": "adalora", "options": {"init_r": 4, "target_r": 2, "total_step": 20, "tinit": 1, "tfinal": 2}})

    type: str = "lora"
    targets: Targets | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("type")
    @classmethod
    def _known_type(cls, type_: str) -> str:
        if type_ not in TYPES:
            raise ValueError(unknown("peft type", type_, TYPES))
        return type_

    @field_validator("options")
    @classmethod
    def _none_refused(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if name in _REFUSED:
                raise ValueError(f"{name} is not an option here: {_REFUSED[name]}")
        init = options.get("init_lora_weights", True)
        if init not in _PLAIN and not str(init).startswith(_RESIDUAL):
            raise ValueError(f"init_lora_weights {init!r} is not supported; known: true, false, gaussian, orthogonal, "
                             "pissa, pissa_niter_N, olora (the others need data or a quantised base)")
        if str(init).startswith(_RESIDUAL) and {"use_dora", "rank_pattern", "alpha_pattern"} & set(options):
            raise ValueError(f"init_lora_weights {init!r} cannot be combined with use_dora or patterns of ranks")
        return options

    @property
    def step_0(self) -> Literal["exact", "rounding", "other"]:
        """Up to rounding where both factors start from something."""
        init = self.options.get("init_lora_weights", True)
        if init is False or self.options.get("init_weights", True) is False:
            return "other"
        if self.type not in _EXACT:
            return "rounding" if self.type in _ROUNDING else "other"
        return "rounding" if init == "orthogonal" or str(init).startswith(_RESIDUAL) else "exact"

    @property
    def takes_quantized(self) -> bool:
        """Of type lora, unless its initialisation takes a share out of the base's matrices."""
        return self.type == "lora" and not str(self.options.get("init_lora_weights")).startswith(_RESIDUAL)

    @property
    def takes_shards(self) -> bool:
        """All but AdaLoRA, which judges whole gradients."""
        return self.type != "adalora"

    def attach(self, model: PreTrainedModel, streams: Streams, slot: str, instance: str = "") -> Component:
        """Put the adapter in; what peft draws comes from the component's stream."""
        from finetrial.models.adapters import Adapter
        from finetrial.models.origin import base_linears
        from finetrial.models.residual import ResidualAdapter

        layers = {name: layer for name, (_, layer) in base_linears(model).items()}
        kind, name = model.config.model_type, component_name(slot, instance)
        self._check_layers(kind)
        adapted = chosen(self._targets(kind), kind, layers, self.type)
        config = self._config(model, {layer: layers[layer] for layer in adapted}, layers)
        residual = str(self.options.get("init_lora_weights")).startswith(_RESIDUAL)
        dora = bool(self.options.get("use_dora"))
        with streams.torch_fork(stream_of(slot, instance)):
            adapter = (ResidualAdapter(model, config, name, adapted) if residual
                       else Adapter(model, config, name, adapted, alone=dora or self.type != "lora",
                                    reads=dora or self.type in _READS))
        made = {"adalora": _AdaLoraComponent}.get(self.type, _Component)
        return made(slot, instance, adapter)

    def count_trainable(self, config: Mapping[str, Any]) -> int | None:
        """For lora, vera, adalora, loha and ia3; None for other types, or if the architecture is not known."""
        shapes = linear_shapes(config)
        if shapes is None or "rank_pattern" in self.options:
            return None
        kind = config["model_type"]
        self._check_layers(kind)
        adapted = [shapes[name] for name in chosen(self._targets(kind), kind, shapes, self.type)]
        both, outputs = sum(inputs + outputs for inputs, outputs in adapted), sum(outputs for _, outputs in adapted)
        rank = self.options.get({"adalora": "init_r"}.get(self.type, "r"), {"vera": 256, "adalora": 12}.get(self.type, 8))
        if self.type == "lora":
            return int(rank * both + (outputs if self.options.get("use_dora") else 0))
        if self.type == "ia3":
            return self._count_ia3(kind, shapes)
        known = {"vera": rank * len(adapted) + outputs, "adalora": rank * (both + len(adapted)), "loha": 2 * rank * both}
        return known.get(self.type)

    def _count_ia3(self, model_type: str, shapes: Mapping[str, tuple[int, int]]) -> int:
        """One number for each output, or for each input of a layer of the MLP."""
        adapted = chosen(self._targets(model_type), model_type, shapes, self.type)
        scaled_inputs = self._feedforward(model_type)
        inside = set(chosen(scaled_inputs, model_type, shapes, self.type)) if scaled_inputs else set()
        return sum(shapes[name][0 if name in inside else 1] for name in adapted)

    def _check_layers(self, model_type: str) -> None:
        """Raise ModelError where peft does not know GPT-2's kind of matrix layer."""
        olora = str(self.options.get("init_lora_weights")).startswith("olora")
        if model_type == "gpt2" and (self.type not in _CONV1D or olora):
            raise ModelError(f"peft's {'olora' if olora else self.type} does not work on the layers of a GPT-2 (Conv1D)",
                             "use pissa" if olora else f"use one of {', '.join(_CONV1D)}, or another base")

    def _targets(self, model_type: str) -> Targets:
        if self.targets is not None:
            return self.targets
        return _IA3[model_type][0] if self.type == "ia3" else "attention"

    def _feedforward(self, model_type: str) -> tuple[str, ...]:
        """For ia3: the layers whose inputs are scaled."""
        given = self.options.get("feedforward_modules")
        if given is not None:
            return tuple(given)
        return _IA3[model_type][1] if self.targets is None else ()

    def _config(self, model: PreTrainedModel, adapted: Mapping[str, Any], layers: Mapping[str, Any]) -> Any:
        """Peft's configuration. Raises ModelError for a type or an option that peft does not know."""
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
        from transformers.pytorch_utils import Conv1D

        from finetrial.models.blocks import architecture_of

        kinds = {kind.value.lower(): kind for kind in PEFT_TYPE_TO_TUNER_MAPPING}
        if self.type not in kinds:
            raise ModelError(f"the installed peft has no {self.type}", "install a newer version of peft")
        made = PEFT_TYPE_TO_CONFIG_MAPPING[kinds[self.type]]
        fields = made.__dataclass_fields__
        for option in self.options:
            if option not in fields:
                raise ModelError(unknown(f"option of peft's {self.type}", option, fields), "mend `options`")
        kind, turned = model.config.model_type, any(isinstance(layer, Conv1D) for layer in adapted.values())
        settings: dict[str, Any] = {
            "task_type": "SEQ_2_SEQ_LM" if architecture_of(model).encoder_decoder else "CAUSAL_LM",
            "target_modules": patterns(self._targets(kind), kind, layers), "fan_in_fan_out": turned,
            "feedforward_modules": list(self._feedforward(kind)), "orth_reg_weight": 0.0}
        if self.type == "lora":
            settings["lora_alpha"] = 2 * self.options.get("r", 8)
        taken = {name: value for name, value in settings.items() if name in fields}
        try:
            config = made(**{**taken, **self.options})
        except (ValueError, TypeError, ImportError) as error:
            raise ModelError(f"peft refuses these options of {self.type}: {error}", "mend `options`") from error
        if "save_projection" in fields:
            config.save_projection = False
        return config


class _Component(AdapterComponent):
    def rewritten(self) -> Mapping[str, nn.Parameter]:
        from finetrial.models.residual import ResidualAdapter

        return self.adapter.rewritten() if isinstance(self.adapter, ResidualAdapter) else {}


class _AdaLoraComponent(_Component):
    """AdaLoRA (Zhang et al. 2023, arXiv 2303.10512) moves its budget of ranks between layers as it trains."""

    def after_step(self, step: int) -> None:
        """Judge the directions by their gradients, and mask the least important."""
        import torch

        for parameter in self.parameters().values():
            if parameter.grad is not None:  # of a step that fp16's scaler skipped: kept, they would spoil every later judgement
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        with torch.no_grad():
            self.adapter.tuner.update_and_allocate(step)

    def progress(self) -> dict[str, Any]:
        allocator, config = self.adapter.tuner.rankallocator, self._tuner_config()
        return {"ipt": dict(allocator.ipt), "exp_avg_ipt": dict(allocator.exp_avg_ipt),
                "exp_avg_unc": dict(allocator.exp_avg_unc), "rank_pattern": config.rank_pattern}

    def resume(self, progress: Mapping[str, Any]) -> None:
        allocator = self.adapter.tuner.rankallocator
        for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(allocator, name, dict(progress[name]))
        self._tuner_config().rank_pattern = progress["rank_pattern"]

    def _tuner_config(self) -> Any:
        return self.adapter.tuner.peft_config[self.adapter.name]
