"""The tokenised text of a bundled base: `python -m finetrial.models.bundled.pretrain_data --out FOLDER`.

`train.npy` is one flat run of token ids (uint16): training documents in a fixed random order, each followed by
`<|endoftext|>`. `val.npz` and `test.npz` hold whole held-out files: `ids` (uint16, flat, each file followed by
`<|endoftext|>`), `offsets` [n+1] (file i is `ids[offsets[i]:offsets[i+1]]`, end token included), `num_bytes` [n]
(UTF-8 bytes of the file's text, without the end token), `paths` [n]. `manifest.json` says what everything is made of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetrial.fingerprint import file_digest, key_of
from finetrial.models.bundled.tokenizer import train_tokenizer
from finetrial.streams import stream
from finetrial.tasks.base import Split
from finetrial.tasks.sources.pretrain_text import held_out_documents, manifest, pretrain_documents

ORDER_SEED = 0
TOKENIZER_TEXT_BYTES = 40_000_000  # the first documents of the shuffled order, up to this size
TOKENIZER_FOLDER = Path(__file__).parent / "tiny-gpt"
HELD_OUT: tuple[Split, ...] = ("val", "test")


def shuffled_documents() -> list[str]:
    """The training documents in the fixed random order in which they are written."""
    documents = pretrain_documents()
    order = stream(ORDER_SEED, "pretrain/documents").permutation(len(documents))
    return [documents[index] for index in order]


def tokenizer_texts(documents: Sequence[str], limit_bytes: int = TOKENIZER_TEXT_BYTES) -> Iterator[str]:
    """The first documents, as many as fit into `limit_bytes`."""
    total = 0
    for text in documents:
        total += len(text.encode("utf-8"))
        if total > limit_bytes:
            return
        yield text


def encode_documents(texts: Sequence[str], tokenizer: Any, batch: int = 256) -> tuple[NDArray[np.uint16],
                                                                                     NDArray[np.int64]]:
    """Flat ids, each text followed by the end token, and the offsets of the texts. -> [total], [n + 1]"""
    end = tokenizer.eos_token_id
    parts, lengths = [np.empty(0, dtype=np.uint16)], [0]
    for start in range(0, len(texts), batch):
        encoded = tokenizer(list(texts[start:start + batch]), add_special_tokens=False, verbose=False,
                            split_special_tokens=True)  # a source that spells the end token does not end there
        for ids in encoded["input_ids"]:
            parts.append(np.asarray([*ids, end], dtype=np.uint16))
            lengths.append(len(ids) + 1)
    return np.concatenate(parts), np.cumsum(lengths, dtype=np.int64)


def write_pretrain_data(out: Path, tokenizer_folder: Path = TOKENIZER_FOLDER, *, train: bool = False) -> dict[str, Any]:
    """Write all files below `out` and return the manifest; `train` makes the tokenizer anew from the documents."""
    from transformers import AutoTokenizer

    documents = shuffled_documents()
    if train:
        train_tokenizer(tokenizer_texts(documents), tokenizer_folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    out.mkdir(parents=True, exist_ok=True)
    ids, _ = encode_documents(documents, tokenizer)
    np.save(out / "train.npy", ids)
    facts = manifest(documents)
    facts["tokenizer_sha256"] = file_digest(tokenizer_folder / "tokenizer.json")
    facts["num_tokens"] = len(ids)
    facts["bytes_per_token"] = facts["num_bytes"] / (len(ids) - len(documents))
    for split in HELD_OUT:
        facts[split] = _write_held_out(out / f"{split}.npz", split, tokenizer)
    (out / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _write_held_out(path: Path, split: Split, tokenizer: Any) -> dict[str, Any]:
    pairs = held_out_documents(split)
    texts = [text for _, text in pairs]
    ids, offsets = encode_documents(texts, tokenizer)
    num_bytes = np.asarray([len(text.encode("utf-8")) for text in texts], dtype=np.int64)
    np.savez(path, ids=ids, offsets=offsets, num_bytes=num_bytes, paths=np.asarray([name for name, _ in pairs]))
    total = int(num_bytes.sum())
    return {"num_files": len(pairs), "num_bytes": total, "num_tokens": len(ids),
            "bytes_per_token": total / (len(ids) - len(pairs))}


def held_out_files(path: Path, limit_tokens: int) -> list[tuple[str, NDArray[np.int64], int]]:
    """(path, token ids without the end token, bytes) of held-out files, up to `limit_tokens`, in an order fixed by the
    digests of their paths."""
    saved = np.load(path)
    order = sorted(range(len(saved["paths"])), key=lambda index: key_of(str(saved["paths"][index])))
    chosen: list[tuple[str, NDArray[np.int64], int]] = []
    total = 0
    for index in order:
        tokens = saved["ids"][saved["offsets"][index]:saved["offsets"][index + 1] - 1]
        if total + len(tokens) > limit_tokens and chosen:
            continue
        chosen.append((str(saved["paths"][index]), tokens.astype(np.int64), int(saved["num_bytes"][index])))
        total += len(tokens)
        if total > 0.99 * limit_tokens:
            break
    return chosen


def main() -> None:
    """Command line: where to write, which tokenizer, and whether to train it first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER_FOLDER)
    parser.add_argument("--train-tokenizer", action="store_true")
    options = parser.parse_args()
    facts = write_pretrain_data(options.out, options.tokenizer, train=options.train_tokenizer)
    print(json.dumps({name: value for name, value in facts.items() if name != "packages"}, indent=1))


if __name__ == "__main__":
    main()
