"""Stand-ins for what the built-in studies take from the hub: repositories of the same names, files, columns and shapes.

Models have the published configuration (`plan/hub_configs/`) and random weights, in the type and the files that the hub
has; those of 1.1B parameters and more are cut to two layers, and Gemma, whose vocabulary alone is 0.5B, in width too.
Tokenizers are the real ones where the folder of real material has them, else stories260K's, which knows 512 tokens.

Rows of OASST1 and WikiText-2 are real. Articles are WikiText's with their first sentences as highlights; functions are
Python's standard library's and those of the embedded JavaScript corpus. Nothing is written but into the folder given.
"""

from __future__ import annotations

import ast
import io
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from real_pairs import MODULES

from finetrial.plan.hub_configs import known_config

Files = dict[str, bytes]
NUM_TRAIN, NUM_HELD_OUT = 120, 40  # rows of a generated data set
GPT2, CODET5 = "openai-community/gpt2", "Salesforce/codet5-small"
TINYLLAMA, GEMMA = "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "google/gemma-2b-it"
CUT: Mapping[str, Mapping[str, Any]] = {
    TINYLLAMA: {"num_hidden_layers": 2},
    GEMMA: {"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 2048, "vocab_size": 512}}
STORED_IN = {TINYLLAMA: "bfloat16", GEMMA: "bfloat16"}
TOKENIZERS = {GPT2: "tokenizers/gpt2/hf", CODET5: "tokenizers/codet5", TINYLLAMA: "stories260K/hf", GEMMA: "stories260K/hf"}
MARKS = ("<s>", "</s>", "<unk>", "<pad>", "<mask>")  # of CodeT5's tokenizer


def model_files(repository: str, real: Path, folder: Path, layers: int | None = None) -> Files:
    """A repository of random weights. `layers` cuts every stack to so many blocks."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    known = known_config(repository)
    assert known is not None
    shape = {**known, **CUT.get(repository, {})}
    if layers is not None:
        shape |= {name: min(layers, shape[name]) for name in ("n_layer", "num_hidden_layers", "num_layers",
                                                              "num_decoder_layers") if name in shape}
    dtype = getattr(torch, STORED_IN.get(repository, "float32"))
    config = AutoConfig.for_model(**{name: value for name, value in shape.items() if name != "torch_dtype"})
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto.from_config(config).to(dtype).save_pretrained(folder)
    return {**{path.name: path.read_bytes() for path in sorted(folder.iterdir())},
            **_tokenizer_files(repository, real / TOKENIZERS[repository])}


def _tokenizer_files(repository: str, folder: Path) -> Files:
    if repository != CODET5:
        return {path.name: path.read_bytes() for path in folder.glob("tokenizer*.json")}
    extra = [f"<extra_id_{number}>" for number in range(99, -1, -1)]  # the hub has no tokenizer.json of it
    start, end, unknown, padding, mask = MARKS
    marks = {"bos_token": start, "cls_token": start, "eos_token": end, "sep_token": end, "unk_token": unknown,
             "pad_token": padding, "mask_token": mask, "additional_special_tokens": extra}
    config = {**marks, "tokenizer_class": "RobertaTokenizer", "model_max_length": 512, "add_prefix_space": False}
    return {**{name: (folder / name).read_bytes() for name in ("vocab.json", "merges.txt")}, "added_tokens.json": b"{}",
            "special_tokens_map.json": json.dumps(marks).encode(), "tokenizer_config.json": json.dumps(config).encode()}


def data_files(real: Path) -> dict[str, Files]:
    """The data sets, by repository: parquet files named as on the hub."""
    articles = list(_articles(real))
    held_out = {"train": articles[:NUM_TRAIN], "validation": articles[NUM_TRAIN:NUM_TRAIN + NUM_HELD_OUT],
                "test": articles[NUM_TRAIN + NUM_HELD_OUT:NUM_TRAIN + 2 * NUM_HELD_OUT]}
    code = {"python": list(_python_functions()), "javascript": list(_javascript_functions())}
    return {"OpenAssistant/oasst1": _oasst1(real), "Salesforce/wikitext": _wikitext(real),
            "abisee/cnn_dailymail": {f"3.0.0/{split}-00000-of-00001.parquet": _parquet(rows)
                                     for split, rows in held_out.items()},
            "google/code_x_glue_ct_code_to_text": {name: data for language, rows in code.items()
                                                   for name, data in _split_by_path(language, rows).items()}}


def _oasst1(real: Path) -> Files:
    rows = [json.loads(line) for line in (real / "oasst1" / "en-validation.jsonl").open(encoding="utf-8")]
    trees = list(dict.fromkeys(row["message_tree_id"] for row in rows))
    held_out = set(trees[:len(trees) // 4])
    return {f"data/{split}-00000-of-00001-{mark}.parquet":
            _parquet([row for row in rows if (row["message_tree_id"] in held_out) == (split == "validation")])
            for split, mark in (("train", "b42a775f407cee45"), ("validation", "134b8fd0c89408b6"))}


def _wikitext(real: Path) -> Files:
    valid, test = (_lines(real / "wikitext2" / f"wiki.{split}.raw") for split in ("valid", "test"))
    cut = len(valid) // 2
    splits = {"train": valid[:cut], "validation": valid[cut:], "test": test}
    return {f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet": _parquet([{"text": line} for line in lines])
            for split, lines in splits.items()}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


def _articles(real: Path) -> Iterator[dict[str, str]]:
    """Runs of paragraphs as long as news articles; the first two sentences of each half are the highlights."""
    paragraphs = [line.strip() for split in ("valid", "test") for line in _lines(real / "wikitext2" / f"wiki.{split}.raw")
                  if len(line) > 300]
    for number in range(len(paragraphs) // 4):
        of_one = paragraphs[4 * number:4 * number + 4]
        sentences = [re.split(r"(?<= \.) ", paragraph)[0] for paragraph in of_one[:3]]
        yield {"article": " ".join(of_one), "highlights": "\n".join(sentences), "id": f"{number:040x}"}


def _code_row(language: str, path: str, name: str, code: str, docstring: str) -> dict[str, Any]:
    return {"id": 0, "repo": f"stand-in/{language}", "path": path, "func_name": name, "original_string": code,
            "language": language, "code": code, "code_tokens": code.split(), "docstring": docstring,
            "docstring_tokens": docstring.split(), "sha": "0" * 40, "url": f"https://example.org/{path}"}


def _python_functions() -> Iterator[dict[str, Any]]:
    """Documented functions as they stand in their files, docstring and all; a file is what `path` says."""
    for module in MODULES:
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        lines = source.splitlines(keepends=True)
        for node in ast.walk(ast.parse(source)):
            docstring = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if isinstance(node, ast.FunctionDef) and docstring and node.end_lineno is not None:
                code = "".join(lines[node.lineno - 1:node.end_lineno])
                place = f"{module.__name__}/{node.name}_{node.lineno}.py"
                yield _code_row("python", place, node.name, textwrap.dedent(code), docstring)


def _javascript_functions() -> Iterator[dict[str, Any]]:
    from finetrial.tasks.jscode import Jscode

    for number, row in enumerate(Jscode().load().rows[:NUM_TRAIN + 2 * NUM_HELD_OUT]):
        text = {segment.loss: segment.text for segment in Jscode().render(row) if segment.loss or segment.cuttable}
        yield _code_row("javascript", f"lib/{number}.js", f"function{number}", text[True], text[False])


def _split_by_path(language: str, rows: Sequence[dict[str, Any]]) -> Files:
    splits = {"test": rows[:NUM_HELD_OUT], "validation": rows[NUM_HELD_OUT:2 * NUM_HELD_OUT],
              "train": rows[2 * NUM_HELD_OUT:]}
    return {f"{language}/{split}-00000-of-00001.parquet":
            _parquet([{**row, "id": number} for number, row in enumerate(of_split)]) for split, of_split in splits.items()}


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), written)
    return written.getvalue()
