"""Generation against transformers' `generate`: one by one, and all rows in one left-padded batch; one thread, fp32.

    .venv/bin/python bench/generation.py                      about 5 minutes
    .venv/bin/python bench/generation.py --rounds 1           a first look
    .venv/bin/python bench/generation.py --model ./folder
    .venv/bin/python bench/generation.py --shape gpt2         GPT-2 of 124M parameters, drawn at random
    .venv/bin/python bench/generation.py --beams 4            beam search

64 prompts of mixed length, cut from this package's own source. `mixed answers` end with the token that makes their
lengths differ most, as those of an adapted model do; `full answers` never end. Nothing is drawn, so that outputs can be
compared token by token. Rounds are interleaved, times are processor time of this process, medians of the rounds; ratios are
what to read.

Aims: at least 8x one by one and 1.3x transformers' batch, outputs identical.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).parents[1] / "src" / "finetrial"
BUNDLED = PACKAGE / "models" / "bundled" / "tiny-gpt"
OURS, BATCHED, SINGLE = "finetrial", "transformers, one batch", "transformers, one by one"
Answers = list[list[int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if outputs differ."""
    options = _options(arguments)
    import torch

    from finetrial.models.load import load_base

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = load_base(_random_gpt2(Path(folder)) if options.shape else options.model)
    prompts = _prompts(base, options.rows, options.max_new_tokens)
    print(f"{options.shape or options.model.name}, {len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens "
          f"(mean {np.mean([len(prompt) for prompt in prompts]):.0f}), at most {options.max_new_tokens} new tokens")
    mixed = _spreading_token(_ours(base, prompts, options, None), options.max_new_tokens)
    same = [_compare(base, prompts, options, end, title)
            for title, end in (("mixed answers", mixed), ("full answers", None))]
    return 0 if all(same) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED, help="a model folder (default: tiny-gpt)")
    parser.add_argument("--shape", choices=["gpt2"], help="a model of this shape with random weights instead")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beams", type=int, default=1)
    return parser.parse_args(arguments)


def _random_gpt2(folder: Path) -> Path:
    """GPT-2 small as it begins before training, with tiny-gpt's tokenizer: what decoding costs does not hang on weights."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BUNDLED).save_pretrained(folder)
    return folder


def _prompts(base: Any, num_rows: int, room: int) -> Answers:
    """Pieces of source of log-uniform length, from 16 tokens to what the positions leave (at most 400)."""
    from finetrial.models.blocks import max_positions

    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.glob("t*/*.py")))
    ids = base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    longest = min(400, (max_positions(base.config) or 1 << 20) - room)
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.uniform(np.log(16), np.log(longest), num_rows)).astype(int)
    return [ids[start:start + length] for length, start in
            zip(lengths, generator.integers(0, len(ids) - longest, num_rows), strict=True)]


def _spreading_token(answers: Answers, room: int) -> int:
    """The token at which to end so that the lengths of answers differ most: an unadapted model hardly ever ends."""
    def lengths(token: int) -> list[int]:
        return [answer.index(token) + 1 if token in answer else room for answer in answers]

    return max({token for answer in answers for token in answer}, key=lambda token: statistics.pstdev(lengths(token)))


def _compare(base: Any, prompts: Answers, options: argparse.Namespace, end: int | None, title: str) -> bool:
    """All sides in turn, round after round. Whether their outputs are identical."""
    sides: dict[str, Callable[[], Answers]] = {
        OURS: lambda: _ours(base, prompts, options, end),
        BATCHED: lambda: _transformers(base, prompts, options, end),
        SINGLE: lambda: [answer for prompt in prompts
                         for answer in _transformers(base, [prompt], options, end)]}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, Answers] = {}
    for number in range(options.rounds):
        for name, side in sides.items():
            started = time.process_time()
            answers[name] = side()
            seconds[name].append(time.process_time() - started)
            print(f"round {number + 1}  {title:<13}  {name:<24}  {seconds[name][-1]:7.2f} s", flush=True)
    lengths = [len(answer) for answer in answers[OURS]]
    print(f"\n{title}: {sum(lengths)} new tokens, {min(lengths)} to {max(lengths)} a row")
    ours = statistics.median(seconds[OURS])
    for name in sides:
        equal = sum(a == b for a, b in zip(answers[name], answers[OURS], strict=True))
        median = statistics.median(seconds[name])
        print(f"  {name:<26} {median:8.2f} s  {sum(lengths) / median:8.0f} tokens/s  {median / ours:5.2f}x finetrial's time"
              f"  (rounds {min(seconds[name]):.2f} to {max(seconds[name]):.2f})  {equal}/{len(prompts)} equal")
    return all(found == answers[OURS] for found in answers.values())


def _ours(base: Any, prompts: Answers, options: argparse.Namespace, end: int | None) -> Answers:
    from finetrial.generate import Beams, decode

    class Ending:
        eos_token_id = end

    return [list(answer.ids) for answer in decode(base.model, Ending(), prompts, max_new_tokens=options.max_new_tokens,
                                                  beams=Beams(options.beams))]


def _transformers(base: Any, prompts: Answers, options: argparse.Namespace, end: int | None) -> Answers:
    """`generate` on a batch, padded on the left as it wants; new tokens only, without the padding behind the end."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    base.model.generation_config.eos_token_id = end
    output = base.model.generate(ids, attention_mask=mask, do_sample=False, num_beams=options.beams, pad_token_id=0,
                                 max_new_tokens=options.max_new_tokens)
    start = 1 if base.config.is_encoder_decoder else width
    return [row[:row.index(end) + 1] if end in row else row for row in output[:, start:].tolist()]


if __name__ == "__main__":
    sys.exit(main())
