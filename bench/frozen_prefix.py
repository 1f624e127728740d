"""What the reuse of frozen first blocks saves in a training step and in prediction; one thread, fp32.

    PYTHONPATH=src .venv/bin/python bench/frozen_prefix.py              about 3 minutes
    PYTHONPATH=src .venv/bin/python bench/frozen_prefix.py --rounds 1   a first look

Arms of `lora-vs-layer` on tiny-gpt with its recipe (rows of 256 tokens, 4 a step) on this package's own source. Each
round runs, for each arm in turn: without reuse, the first cell (which computes and keeps the states), another cell at
a second learning rate (which reads them). Rounds are interleaved, times are processor time, medians of the rounds.
Ratios are what to read. Losses of the three are compared bit for bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).parents[1] / "src" / "finetrial"
BUNDLED = PACKAGE / "models" / "bundled" / "tiny-gpt"
WITHOUT, FIRST, LATER = "without", "first cell", "later cell"
TRAIN_ROWS, TEST_ROWS = 200, 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if losses differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED, help="a model folder (default: tiny-gpt)")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    import torch

    from finetrial.methods.layer import Layer
    from finetrial.methods.unfreeze import Unfreeze

    torch.set_num_threads(1)
    arms = {"layer at the end": Layer(), "last block unfrozen": Unfreeze(last=1)}
    train_rows, test_rows = _rows(options.model, TRAIN_ROWS, 0), _rows(options.model, TEST_ROWS, 1)
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    same = True
    for _ in range(options.rounds):
        for arm, method in arms.items():
            with tempfile.TemporaryDirectory() as folder:
                losses = []
                for side in (WITHOUT, FIRST, LATER):
                    where = None if side == WITHOUT else Path(folder)
                    times, found = _cell(options, method, train_rows, test_rows, where)
                    seconds.setdefault((arm, side), []).append(times)
                    losses.append(found)
                same &= losses[0] == losses[1] == losses[2]
    for number, what in enumerate((f"{options.steps} training steps", f"prediction of {TEST_ROWS} items")):
        print(f"\n{what}, processor seconds")
        for arm in arms:
            medians = {side: statistics.median(times[number] for times in seconds[arm, side])
                       for side in (WITHOUT, FIRST, LATER)}
            print(f"  {arm:<20}", *(f"{side} {value:6.2f} s ({value / medians[WITHOUT]:4.2f})  " for side, value in
                                    medians.items()))
    print("losses bit-equal" if same else "LOSSES DIFFER")
    return 0 if same else 1


def _cell(options: argparse.Namespace, method: Any, train_rows: Any, test_rows: Any, folder: Path | None,
          ) -> tuple[tuple[float, float], tuple[list[float], list[float]]]:
    """((seconds of training, of prediction), (training losses, test losses)); digesting the prefix is counted."""
    from finetrial.models.load import load_base
    from finetrial.models.params import own
    from finetrial.streams import Streams
    from finetrial.train.config import Training
    from finetrial.train.loop import train
    from finetrial.train.loss import item_losses
    from finetrial.train.reuse import reuse_below

    model = load_base(options.model).model
    component = method.attach(model, Streams(0), "main")
    changing = own(model, [component]).values()
    config = Training.model_validate({"budget": f"{options.steps} steps", "sequence_length": 256, "batch_sequences": 4})
    losses: list[float] = []
    started = time.process_time()
    train(model, [component], train_rows, config, 1e-3, Streams(0), reuse=reuse_below(model, changing, folder),
          on_metrics=lambda metrics: losses.append(metrics["loss"]))
    trained = time.process_time()
    predicted, _ = item_losses(model, test_rows, reuse=reuse_below(model, changing, folder))
    return (trained - started, time.process_time() - trained), (losses, predicted.tolist())


def _rows(folder: Path, num: int, seed: int) -> Any:
    """Pieces of source of 40 to 256 tokens, all of them targets."""
    from finetrial.models.load import load_tokenizer
    from finetrial.tasks.encoded import TokenDataset

    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.glob("*/*.py")))
    ids = np.array(load_tokenizer(folder)(text, add_special_tokens=False, verbose=False)["input_ids"], np.int32)
    generator = np.random.default_rng(seed)
    lengths = generator.integers(40, 257, num)
    starts = generator.integers(0, len(ids) - 256, num)
    rows = np.concatenate([ids[start:start + length] for start, length in zip(starts, lengths, strict=True)])
    names = [str(number) for number in range(num)]
    return TokenDataset(rows, np.ones(len(rows), bool), np.cumsum([0, *lengths]), lengths, names, names)


if __name__ == "__main__":
    sys.exit(main())
