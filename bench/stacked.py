"""Cells trained in one pass over a frozen base, against the same cells one after the other.

    PYTHONPATH=src .venv/bin/python bench/stacked.py                                    tiny-gpt on one CPU thread
    PYTHONPATH=src .venv/bin/python bench/stacked.py --device cuda --gpt2 --rows 8      GPT-2's shape, 8 x 256 tokens
    PYTHONPATH=src .venv/bin/python bench/stacked.py --cells 1,4 --rounds 1             a first look

LoRA r=8 on all linear layers, 1 to 16 cells of different seeds and learning rates; every row is `--tokens` long. Each
round times both sides once, so that they are interleaved; medians of the rounds. The ratio is what to read: throughput of the stack over that of cells one by one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BUNDLED = Path(__file__).parents[1] / "src" / "finetrial" / "models" / "bundled" / "tiny-gpt"
VOCABULARY = 8000  # token ids are drawn below it
RATES = (1e-3, 3e-3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED, help="a model folder (default: tiny-gpt)")
    parser.add_argument("--gpt2", action="store_true", help="random weights in the shape of GPT-2 (124M) instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--cells", default="1,2,4,8,16")
    parser.add_argument("--rows", type=int, default=4, help="of one cell's step")
    parser.add_argument("--tokens", type=int, default=64, help="of a row")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    model = _model(options)
    _timed(options, model, 1, stacked=False)  # what the first use of a device takes
    for num_cells in map(int, options.cells.split(",")):
        together, alone = [], []
        for _ in range(options.rounds):
            together.append(_timed(options, model, num_cells, stacked=True))
            alone.append(_timed(options, model, num_cells, stacked=False))
        stack, single = statistics.median(together), statistics.median(alone)
        print(f"{num_cells:3} cells of {options.rows} x {options.tokens} tokens   one by one {single:9.0f} tokens/s   "
              f"stacked {stack:9.0f} tokens/s   {stack / single:5.2f}x   (rounds "
              f"{min(a / b for a, b in zip(together, alone, strict=True)):.2f} to "
              f"{max(a / b for a, b in zip(together, alone, strict=True)):.2f})", flush=True)
    return 0


def _model(options: argparse.Namespace) -> Any:
    if not options.gpt2:
        from finetrial.models.load import load_base

        return load_base(options.model).model
    from transformers import GPT2Config, GPT2LMHeadModel

    from finetrial.models.load import fuse_activations

    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).eval()
    fuse_activations(model)
    return model


def _timed(options: argparse.Namespace, model: Any, num_cells: int, *, stacked: bool) -> float:
    """Tokens a second of all cells: of the processor on a CPU, of the clock elsewhere."""
    import torch

    from finetrial.models.stacked import StackedAdapters, shell
    from finetrial.train.loop import train
    from finetrial.train.stack import train_stacked

    def now() -> float:
        if options.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    cells = [_cell(options, model, number) for number in range(num_cells)]
    started = now()
    if stacked:
        carrier = shell(model)
        adapters = [component.adapter for cell in cells for component in cell.components]  # type: ignore[attr-defined]
        train_stacked(carrier, StackedAdapters(carrier, adapters), cells, device=options.device)
    else:
        for cell in cells:
            train(cell.model, cell.components, cell.dataset, cell.config, cell.learning_rate, cell.streams,
                  device=options.device)
    return num_cells * options.steps * options.rows * options.tokens / (now() - started)


def _cell(options: argparse.Namespace, model: Any, number: int) -> Any:
    """A cell on its own shell of the model."""
    from finetrial.methods.lora import Lora
    from finetrial.models.stacked import shell
    from finetrial.streams import Streams
    from finetrial.tasks.encoded import TokenDataset
    from finetrial.train.config import Training
    from finetrial.train.stack import Cell

    own, streams, num_rows = shell(model.to(options.device)), Streams(number), 64
    ids = np.random.default_rng(0).integers(1, VOCABULARY, num_rows * options.tokens).astype(np.int32)
    offsets = np.arange(num_rows + 1) * options.tokens
    names = [str(row) for row in range(num_rows)]
    rows = TokenDataset(ids, np.ones(len(ids), bool), offsets, np.diff(offsets), names, names)
    config = Training.model_validate({"budget": f"{options.steps} steps", "sequence_length": options.tokens,
                                      "batch_sequences": options.rows, "precision": options.precision})
    component = Lora(rank=8, targets="all-linear").attach(own, streams, "main")
    return Cell(model=own, components=[component], dataset=rows, config=config,
                learning_rate=RATES[number % len(RATES)], streams=streams)


if __name__ == "__main__":
    sys.exit(main())
