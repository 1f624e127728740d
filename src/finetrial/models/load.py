"""Loading models: the only caller of `from_pretrained`.

A base is loaded in fp32, whatever type it is stored in, from safetensors files in a local folder, without dropout. An
arm may ask for its matrices in 4 bits (`models/quantized.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetrial.errors import ModelError
from finetrial.models import quantized
from finetrial.models.attention_kernels import choose_attention_kernels
from finetrial.models.check import check_num_tokens, check_weights_fit, damaged, without_head
from finetrial.models.shapes import Attention, Quantization, architecture, attention_used

_WITHOUT_SENTENCEPIECE = ("tokenizer.json", "vocab.json")
_TOKENIZER_FILES = (*_WITHOUT_SENTENCEPIECE, "tokenizer.model", "spiece.model")
_OWN_FILES = {"local_files_only": True, "trust_remote_code": False}  # nothing is fetched, and no code of a folder is run, nor asked about
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "dropout_rate", "hidden_dropout")


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory, in eval mode: the model with its head, its tokenizer and its configuration."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    config: Any  # transformers.PreTrainedConfig


def load_base(folder: Path, *, attention: Attention = "sdpa", quantization: Quantization | None = None,
              dequantized: bool = False, device: str = "cpu") -> LoadedBase:
    """Load a model, in fp32, and its tokenizer from a folder in the format of transformers.

    `attention` is what is asked for; an architecture may need another (`shapes.attention_used`). With `quantization` the
    matrices are quantised on `device`, as they are read, and stay there; with `dequantized` the model is a plain one in
    fp32, on the CPU, that has the values of the quantised one. Otherwise the model is on the CPU.
    Raises MissingPackage without the library that quantises; ModelError for a missing folder, configuration or tokenizer, an unknown architecture, weights that are
    pickled, truncated, or do not fill the model.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json",
                         "name a folder saved with save_pretrained, or one of the bundled bases")
    check_weights_fit(folder, json.loads(config_file.read_text(encoding="utf-8")))
    model = _load_model(folder, attention, None if dequantized else quantization, device)
    if dequantized and quantization is not None:
        quantized.copy_values(_load_model(folder, attention, quantization, device), model)
    tokenizer = load_tokenizer(folder)
    check_num_tokens(folder, len(tokenizer), model.get_input_embeddings().num_embeddings)
    return LoadedBase(model.eval(), tokenizer, model.config)


def import_code(folder: Path) -> None:
    """Have the code of a model's architecture in memory, which takes some 100 MB whatever the model's size. Nothing
    happens for a folder that `load_base` would refuse."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoConfig

    try:
        kind = type(AutoConfig.from_pretrained(folder, **_OWN_FILES))
    except (OSError, ValueError):
        return
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING):
        if kind in mapping:
            mapping[kind]  # transformers imports a class when it is asked for


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises ModelError if there is none, or it cannot be read."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)})",
                         "save the model's tokenizer into the same folder")
    try:
        return AutoTokenizer.from_pretrained(folder, **_OWN_FILES)
    except Exception as error:  # tokenizers raises no other class
        if "trust_remote_code" in str(error):
            raise ModelError(f"the tokenizer in {folder} has Python code of its own, which finetrial does not run",
                             "use a model with a tokenizer of transformers, or one in a single tokenizer.json") from None
        if not any((folder / name).is_file() for name in _WITHOUT_SENTENCEPIECE):
            mend = ("make its tokenizer.json once, where sentencepiece is installed: "
                    f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})")
        else:
            mend = "copy or save it again"
        raise ModelError(f"the tokenizer in {folder} cannot be read: {error}", mend) from error


def _load_model(folder: Path, attention: Attention, quantization: Quantization | None, device: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.from_pretrained(folder, **_OWN_FILES)
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    how = {} if quantization is None else {"quantization_config": quantized.configuration(quantization),
                                           "device_map": {"": device}}
    auto = AutoModelForSeq2SeqLM if architecture(config.model_type).encoder_decoder else AutoModelForCausalLM
    try:
        model, report = auto.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, **_OWN_FILES,
            attn_implementation=attention_used(config.model_type, attention), output_loading_info=True,
            ignore_mismatched_sizes=True, **how)  # they are in the report
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}",
                         "check that config.json and the weights belong together") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        raise ModelError(f"the weights in {folder} do not fill the model: tensors are missing or have another shape ({len(missing)}, the first "
                         f"{missing[0]})", without_head(config.to_dict()) or "fetch or copy the model again")
    fuse_activations(model)
    choose_attention_kernels()
    if quantization is not None:
        quantized.keep_layout(model)
        quantized.release_file(model)
    return model


def fuse_activations(model: nn.Module) -> None:
    """Replace GPT-2's `gelu_new`, written out in six operations, by the one kernel of the same function.

    Equal to rounding (1e-7); a training step of a small GPT-2 on a CPU takes a fifth less. The configuration is kept.
    """
    from transformers.activations import NewGELUActivation

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NewGELUActivation):
                setattr(parent, name, nn.GELU(approximate="tanh"))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ModelError, naming the file, if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error
