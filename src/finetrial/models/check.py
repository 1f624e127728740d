"""Whether the files of a folder can be a model: what the headers of its weights, its tokenizer and its config.json say of
each other. No torch here, and no tensor is read: a base is refused before anything runs.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header, JSON: for each tensor its
shape and where it lies behind the header (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetrial.errors import ModelError
from finetrial.models.shapes import architecture, embedding_shape, linear_shapes

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TRANSPOSED = ("gpt2",)  # its linear layers are stored (inputs, outputs), others' (outputs, inputs)
HEADED = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel", "ForConditionalGeneration", "WithLMHeadModel")  # of transformers' classes
FILLED_IN = {"gemma": ("num_key_value_heads", "head_dim"), "mistral": ("num_key_value_heads",)}  # not as Llama has it, if left out

Shape = tuple[int, ...]


def check_model(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for an architecture that is not known, weights that are pickled, missing, damaged, or of other shapes
    than config.json says, and a tokenizer with more tokens than the model has embeddings."""
    tensors = check_weights_fit(folder, config)
    embedded = _stored(tensors, architecture(config["model_type"]).embedding, config)
    num_embeddings = embedded[0] if embedded else config.get("vocab_size")
    path = folder / "tokenizer.json"
    if path.is_file() and isinstance(num_embeddings, int):
        stat = path.stat()
        check_num_tokens(folder, _num_tokens(path, stat.st_size, stat.st_mtime_ns), num_embeddings)


def check_weights_fit(folder: Path, config: Mapping[str, Any]) -> dict[str, Shape]:
    """The shapes of a model's tensors, by name. Raises ModelError as `check_model` does, but for the tokenizer."""
    kind = config.get("model_type", "")
    known = architecture(kind)
    files = weight_files(folder)
    tensors = {name: shape for path in files for name, shape in check_weights(path).items()
               if path.name == WEIGHTS or (folder / INDEX).is_file()}
    wanted: dict[str, Shape] = {}
    if all(name in config for name in FILLED_IN.get(kind, ())):
        wanted = {path: shape if kind in TRANSPOSED else shape[::-1] for path, shape in (linear_shapes(config) or {}).items()}
    embedding = embedding_shape(config)
    if embedding is not None and _stored(tensors, known.embedding, config) is not None:
        wanted[known.embedding] = embedding
    wrong = {path: shape for path, shape in wanted.items() if _stored(tensors, path, config) != shape}
    if wrong:
        first, shape = next(iter(wrong.items()))
        stored = _stored(tensors, first, config)
        raise ModelError(f"the weights in {folder} do not fill the model: tensors are missing or have another shape "
                         f"than config.json says ({len(wrong)}), the first {first}.weight: expected {_told(shape)}, the file has "
                         f"{_told(stored) if stored else 'none'}",
                         without_head(config) or "fetch or copy config.json and the weights again, of one model")
    return tensors


def without_head(config: Mapping[str, Any]) -> str:
    """What to do about weights that lack tensors, where their config.json names a class without an output head; else ''."""
    bare = [str(name) for name in config.get("architectures") or () if not str(name).endswith(HEADED)]
    return f"config.json names {bare[0]}, which has no head that generates: take the checkpoint of a model that has one " \
           "(...ForCausalLM, for T5 ...ForConditionalGeneration)" if bare else ""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: those that its index names, else all. Raises ModelError where there are none."""
    index = folder / INDEX
    if index.is_file():
        try:
            return sorted({folder / str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index} cannot be read: {error}", "fetch or copy the file again") from error
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickled:
            raise ModelError(f"{folder} has no *.safetensors file, only pickled weights ({', '.join(pickled)}), which can run "
                             "code when loaded",
                             "convert them once: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)")
        raise ModelError(f"{folder} has no *.safetensors file: there are no weights",
                         "a model folder holds config.json, weights, tokenizer")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} has {weights[0].name}, and no {WEIGHTS}",
                         f"weights are called {WEIGHTS}, or what {INDEX} says: rename the file")
    return weights


def check_weights(path: Path) -> dict[str, Shape]:
    """The shapes of the tensors of a safetensors file, by name; only its header is read. Raises ModelError, naming the file,
    if it is missing, truncated or damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError(f"{size:,} bytes do not hold its header")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        wanted = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if size != wanted:
            raise ValueError(f"{size:,} bytes, where its header tells of {wanted:,}")
        return {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ModelError:
    """The error for weights that cannot be read."""
    return ModelError(f"the weights file {path} is missing, truncated or damaged ({error})",
                      "fetch or copy the file again; its size should be that of the original")


def check_num_tokens(folder: Path, num_tokens: int, num_embeddings: int) -> None:
    """Raise ModelError for a tokenizer with tokens that the model has no embedding for."""
    if num_tokens > num_embeddings:
        raise ModelError(f"the tokenizer in {folder} has {num_tokens} tokens, the model's embedding {num_embeddings}",
                         "use the tokenizer of this model")


@lru_cache(maxsize=8)
def _num_tokens(path: Path, size: int, changed: int) -> int:
    """The different tokens of a tokenizer.json, those added behind the vocabulary too; `size` and `changed` have one that was
    changed read again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        pieces = vocabulary if isinstance(vocabulary, Mapping) else [piece for piece, _ in vocabulary]
        return len({*pieces, *(token["content"] for token in content.get("added_tokens") or ())})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the tokenizer in {path.parent} cannot be read: {path.name}: {type(error).__name__}: {error}",
                         "copy or save it again") from error


def _stored(tensors: Mapping[str, Shape], path: str, config: Mapping[str, Any]) -> Shape | None:
    """The shape of a layer's weight as the files have it; the names of a model without its head begin one part later."""
    inner = path.removeprefix(f"{architecture(config['model_type']).backbone}.")
    return next((tensors[f"{name}.weight"] for name in (path, inner) if f"{name}.weight" in tensors), None)


def _told(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
