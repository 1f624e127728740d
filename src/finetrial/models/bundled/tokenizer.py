"""The tokenizer of our own bases: byte-level BPE over Python and prose, trained on `pretrain` text only.

Pre-tokenisation keeps what Python repeats in one piece: a line break together with the indentation that follows, runs
of spaces, a word with the space or underscore before it. Digits stand alone. Training is deterministic: the same texts
in the same order give the same files.

Encoder-decoders have a copy with special tokens appended: the ids of text are the same in both, so that one tokenised
text serves all bases.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 8_192
END_OF_TEXT = "<|endoftext|>"
CONTEXT_TOKENS = 1_024
PAD = "<|pad|>"
SENTINELS = tuple(f"<|span_{number}|>" for number in range(31))  # with PAD, a multiple of 32 in all
WORD_PATTERN = r"\n+[ \t]*|[ _]?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|[ \t]+|\s+"


def train_tokenizer(texts: Iterable[str], out_dir: Path, vocabulary_size: int = VOCABULARY_SIZE) -> Any:
    """Train on `texts`, write the files that `AutoTokenizer.from_pretrained(out_dir)` reads, return the tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT,
        model_max_length=CONTEXT_TOKENS, clean_up_tokenization_spaces=False)
    wrapped.save_pretrained(out_dir)
    return wrapped


def encoder_decoder_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder` for an encoder-decoder: padding and 31 sentinels are the last ids, in this order, and
    the end of text closes every text, as T5's `</s>` does."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": PAD, "extra_special_tokens": list(SENTINELS)})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END_OF_TEXT}", pair=f"$A {END_OF_TEXT} $B {END_OF_TEXT}",
        special_tokens=[(END_OF_TEXT, tokenizer.eos_token_id)])
    return tokenizer
