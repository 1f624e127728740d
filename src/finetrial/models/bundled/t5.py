"""The recipe of a T5: prefix to suffix, lost lines, text infilling; judged by how it goes on with unseen text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetrial.models.bundled import ngram
from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
from finetrial.models.bundled.recipe import SAMPLES, CardText, Recipe
from finetrial.models.bundled.tokenizer import SENTINELS, encoder_decoder_tokenizer
from finetrial.models.load import fuse_activations, load_base
from finetrial.streams import Streams
from finetrial.tasks.encoded import TokenDataset
from finetrial.train.config import Budget, Precision, Training
from finetrial.train.flat import FlatDataset
from finetrial.train.loss import item_losses
from finetrial.train.prefix_spans import CorruptedTarget, Marks, Objective, Pair, PairBatches, PrefixSpanDataset

VALIDATION_PAIRS = 150
GATE_PAIRS = 1_000
RESTORED_TEXTS = 200
SHOWN_TOKENS = 48  # of a sample's prefix
CONTEXT_TOKENS = ngram.ORDER - 1  # what a 5-gram model sees of a prefix
CORRUPTED = {"spans": "corrupted spans, which are asked for (Raffel et al. 2020)",
             "text": "text infilling, where the whole text is asked for (Lewis et al. 2020)"}
LINE_BREAK = "Ċ"  # how byte-level BPE writes one


@dataclass(frozen=True)
class T5Recipe(Recipe):
    """Widths in units, lengths in tokens.

    T5's own initialisation (`embedding_std` 1, `block_scale` 1) was made for Adafactor, which moves a parameter in
    proportion to its size. AdamW moves all alike, so the embedding starts small, the decoder's last norm at
    width ** 0.5, which undoes the scale that T5 puts before its tied head, and the blocks' matrices at `block_scale` of
    T5's. What tiny-gpt has learned of the tokens they share is kept: its embeddings, brought to `embedding_std`, are where
    `embeddings_of` names it (Rothe et al. 2020 begin encoder-decoders from such checkpoints).

    To copy, the decoder must find the source's token that follows one like its last: the encoder has to know each token's
    neighbour. With biases of distance that are all alike at the beginning none of its heads ever came to look there, and the
    decoder learned to do without a source. So the first head of both stacks begins by looking one token back, the encoder's
    second one ahead: `neighbour_bias`, in nats, is the scores' advantage there.
    """

    name: str
    encoder_layers: int
    decoder_layers: int
    width: int
    heads: int
    inner: int
    activation: str
    vocabulary: int
    embeddings_of: str | None
    embedding_std: float
    block_scale: float
    neighbour_bias: float
    prefix_share: float
    lines_share: float
    source_tokens: tuple[int, int]
    target_tokens: tuple[int, int]
    lines_tokens: tuple[int, int]
    noise_density: float
    mean_span_tokens: float
    corrupted_target: CorruptedTarget
    copied_first: int
    copied_tokens: tuple[int, int]
    learning_rate: float
    batch_sequences: int
    micro_batch: int
    tokens: int
    weight_decay: float
    warmup: float
    final: float
    precision: Precision
    seed: int = 0

    def tokenizer(self) -> Any:
        """The bundled tokenizer with padding and sentinels."""
        return encoder_decoder_tokenizer(TOKENIZER_FOLDER)

    def random_model(self, tokenizer: Any, streams: Streams) -> Any:
        """A T5 without dropout."""
        from transformers import AutoModelForSeq2SeqLM, T5Config

        assert len(tokenizer) == self.vocabulary
        config = T5Config(
            vocab_size=self.vocabulary, d_model=self.width, d_kv=self.width // self.heads, num_heads=self.heads,
            d_ff=self.inner, num_layers=self.encoder_layers, num_decoder_layers=self.decoder_layers,
            feed_forward_proj=self.activation, dropout_rate=0.0, pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
        with streams.torch_fork("init"):
            model = AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")  # fastest with a trained bias
        with torch.no_grad():
            model.shared.weight.mul_(self.embedding_std)
            if self.embeddings_of:
                learned = load_base(TOKENIZER_FOLDER.parent / self.embeddings_of).model.get_input_embeddings().weight
                model.shared.weight[:len(learned)] = learned * (self.embedding_std / learned.std())
            model.decoder.final_layer_norm.weight.fill_(self.width ** 0.5)
            for stack in (model.encoder.block, model.decoder.block):
                for parameter in stack.parameters():
                    if parameter.ndim == 2:
                        parameter.mul_(self.block_scale)
            self._look_at_neighbours(model)
        fuse_activations(model)
        return model

    def _look_at_neighbours(self, model: Any) -> None:
        """Bias the first heads' scores. T5's buckets: 1 is the token before, and in an encoder, whose upper half of buckets
        is for tokens ahead, the one after the half's first is the next token."""
        for stack, bucket_of_head in ((model.encoder, (1, model.config.relative_attention_num_buckets // 2 + 1)),
                                      (model.decoder, (1,))):
            bias = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight  # (buckets, heads)
            for head, bucket in enumerate(bucket_of_head):
                bias[:, head] = 0.0
                bias[bucket, head] = self.neighbour_bias

    def training(self) -> Training:
        """Muon, cosine. The budget counts tokens of sources and targets."""
        return Training(budget=Budget(amount=self.tokens, unit="tokens"), sequence_length=self.source_tokens[1],
                        batch_sequences=self.batch_sequences, optimizer="muon", weight_decay=self.weight_decay,
                        warmup=self.warmup, schedule="cosine", final=self.final, evaluations=20, beta2=0.95,
                        precision=self.precision)

    def objective(self) -> Objective:
        """What a row asks for."""
        return Objective(**{field.name: getattr(self, field.name) for field in fields(Objective)})

    def text(self, work: Path, tokenizer: Any) -> FlatDataset:
        """Pairs."""
        text = FlatDataset.open(work / "train.npy", end_of_text=tokenizer.eos_token_id)
        return PrefixSpanDataset(text.ids, text.end_of_text, marks=marks(tokenizer), objective=self.objective())

    def validation(self, work: Path, tokenizer: Any) -> TokenDataset:
        """Prefixes and suffixes of validation files."""
        return documents(self.held_out_pairs(work / "val.npz", tokenizer, VALIDATION_PAIRS), tokenizer)

    def held_out_pairs(self, path: Path, tokenizer: Any, count: int) -> list[Pair]:
        """Prefixes and suffixes of held-out files, drawn as in training but without the end token, the same for every
        recipe of these lengths."""
        pairs = self._drawn(path, tokenizer, count, replace(self.objective(), prefix_share=1.0, copied_first=0))
        return [Pair(pair.source, pair.target[pair.target != tokenizer.eos_token_id]) for pair in pairs]

    def _drawn(self, path: Path, tokenizer: Any, count: int, objective: Objective) -> list[Pair]:
        with np.load(path) as saved:
            data = PrefixSpanDataset(saved["ids"], tokenizer.eos_token_id, marks=marks(tokenizer), objective=objective)
        drawn = PairBatches(data, self.training(), Streams(0, "held-out/"))
        return [drawn.pair(number) for number in range(count)]

    def gate(self, model: Any, tokenizer: Any, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """Nats per token and bits per byte of suffixes given their prefixes, in files of unseen test clusters: the base,
        and 5-gram models, which see the prefix's last four tokens, trained on the text that the base's pairs were cut
        from, and on the whole of the pretraining text. And nats per token of texts given themselves with spans lost, and
        given one another so: a decoder that does not read its source pays the same for both, and does not pass.
        """
        pairs = self.held_out_pairs(work / "test.npz", tokenizer, GATE_PAIRS)
        scored = documents(pairs, tokenizer)
        num_bytes, num_tokens = int(scored.num_bytes.sum()), len(scored.ids)
        sums, _ = item_losses(model, scored)
        ours = float(sums.sum()) / np.log(2) / num_bytes
        text = np.load(work / "train.npy")
        read = self._read(work, tokenizer, text)
        bits = {}
        for what, ids in (("read", read), ("all_text", text)):
            say(f"training a 5-gram model on {len(ids):,} tokens")
            bits[what] = _five_gram_bits(ngram.train(ids, vocabulary_size=self.vocabulary), pairs) / num_bytes
        restored, from_another = self._restored(model, tokenizer, work)
        gate = {"num_pairs": len(pairs), "num_bytes": num_bytes, "num_tokens": num_tokens,
                "nats_per_target_token": round(float(sums.sum()) / num_tokens, 4), "bits_per_byte": round(ours, 4),
                "five_gram_tokens": len(read), "five_gram_bits_per_byte": round(bits["read"], 4),
                "five_gram_all_text_bits_per_byte": round(bits["all_text"], 4),
                "below_five_gram": round(1 - ours / bits["read"], 4),
                "restored_nats_per_token": round(restored, 4), "restored_from_another_nats_per_token": round(from_another, 4),
                "passed": bool(ours < bits["read"] and restored < from_another / 2)}
        say(json.dumps(gate))
        return gate

    def _restored(self, model: Any, tokenizer: Any, work: Path) -> tuple[float, float]:
        """Nats per token of texts whose source is what is left of them, and what is left of the next one."""
        infilling = replace(self.objective(), prefix_share=0.0, lines_share=0.0, corrupted_target="text", copied_first=0)
        pairs = self._drawn(work / "test.npz", tokenizer, RESTORED_TEXTS, infilling)
        others = [Pair(other.source, pair.target) for pair, other in zip(pairs, [*pairs[1:], pairs[0]], strict=True)]
        own, another = (item_losses(model, documents(given, tokenizer)) for given in (pairs, others))
        return float(own[0].sum() / own[1].sum()), float(another[0].sum() / another[1].sum())

    def samples(self, model: Any, tokenizer: Any, work: Path) -> list[tuple[str, str]]:
        """(end of the prefix, suffix) for held-out prefixes, sampled at temperature 0.7."""
        found = []
        for number, pair in enumerate(self.held_out_pairs(work / "test.npz", tokenizer, SAMPLES)):
            source = torch.from_numpy(pair.source.astype(np.int64))[None]
            with Streams(0).torch_fork(f"sample/{number}"):
                output = model.generate(input_ids=source, attention_mask=torch.ones_like(source), max_new_tokens=80,
                                        do_sample=True, temperature=0.7, top_k=0)
            shown = pair.source[-1 - SHOWN_TOKENS:-1]
            found.append((tokenizer.decode(shown), tokenizer.decode(output[0], skip_special_tokens=True)))
        return found

    def card(self, facts: Mapping[str, Any], gate: Mapping[str, Any]) -> CardText:
        """The base beside its 5-gram models; one, where the other has read as good as the same."""
        all_text, read = (f"{gate[key]:.3f}" for key in ("five_gram_all_text_bits_per_byte", "five_gram_bits_per_byte"))
        whole = f"\n| the same on all of the pretraining text | {all_text} |" if all_text != read else ""
        return CardText(
            opening=f"""A tiny T5 made for finetrial's embedded studies: {self.encoder_layers} encoder and {self.decoder_layers} decoder layers,
width {self.width}, {self.heads} heads, {self.activation} of {self.inner}, vocabulary {self.vocabulary:,} (tiny-gpt's tokenizer, with padding and
{len(SENTINELS)} sentinels appended). It knows Python source and the prose of docstrings, and nothing else. It is a subject for
trials, not a tool for writing code; results on it are results on a tiny model.

Objective: {100 * self.prefix_share:.0f} % prefix to suffix ({self.source_tokens[0]} to {self.source_tokens[1]} tokens of source, {self.target_tokens[0]} to {self.target_tokens[1]} of target), {100 * self.lines_share:.0f} % lines
lost from the middle, which are asked for (gap sentences of Zhang et al. 2020, at random), {
    100 * (1 - self.prefix_share - self.lines_share):.0f} % {CORRUPTED[self.corrupted_target]}
({100 * self.noise_density:.0f} % of the tokens lost, {self.mean_span_tokens:g} to a span). The shares are of the rows after
the first {self.copied_first:,}, all of which are infilled, of {self.copied_tokens[0]} to {self.copied_tokens[1]} tokens. The first head of both stacks began
by looking one token back, the encoder's second one ahead.{
    f" Its token embeddings began as {self.embeddings_of}'s." * bool(self.embeddings_of)}""",
            seen=f"""{self.tokens:,} tokens of sources and targets, drawn from {gate['five_gram_tokens']:,} of the {facts['num_tokens']:,}
  tokens ({facts['num_bytes'] / 1e6:.0f} MB) of `pretrain` clusters (manifest.json).""",
            quality=f"""\
On {gate['num_pairs']:,} prefixes and suffixes from files of unseen `test` clusters ({gate['num_bytes']:,} bytes of suffixes; gate.json):

| model | bits per byte of the suffix |
|---|---|
| {self.name}, given the prefix | {gate['bits_per_byte']:.3f} |
| 5-gram (interpolated modified Kneser-Ney), given the prefix's last four tokens, on the {gate['five_gram_tokens'] / 1e6:.1f}M tokens that {self.name}'s pairs were cut from | {read} |{whole}

That is {abs(100 * gate['below_five_gram']):.0f} % {'below' if gate['below_five_gram'] >= 0 else 'above'} the 5-gram model of the same text, and {gate['nats_per_target_token']:.3f} nats per target token.
A token of a text that is to be restored costs {gate['restored_nats_per_token']:.3f} nats given the text with {100 * self.noise_density:.0f} % of it lost, {
    gate['restored_from_another_nats_per_token']:.3f} given
another text so ({RESTORED_TEXTS} texts of the same files).
The gate (below that 5-gram model, and restored texts at less than half the nats) is {
    'passed' if gate['passed'] else 'NOT passed'}.""",
            sampling=f"The last {SHOWN_TOKENS} tokens of a held-out prefix, then what the model wrote (temperature 0.7, "
                     "first draw, not picked).")

    def _read(self, work: Path, tokenizer: Any, text: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The pieces of the text that training's pairs were drawn from, in the text's order, each once."""
        data = self.text(work, tokenizer)
        assert isinstance(data, PrefixSpanDataset)
        drawn = data.batches(self.training(), Streams(self.seed))
        num_rows = drawn.num_steps(self.training().budget) * self.batch_sequences
        found = sorted({drawn.piece(number) for number in range(num_rows)})
        return np.concatenate([text[first:last] for first, last in found])


def marks(tokenizer: Any) -> Marks:
    """The ids that give a pair its form, as the tokenizer has them."""
    written = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    first = tokenizer.convert_tokens_to_ids(SENTINELS[0])
    return Marks(end=tokenizer.eos_token_id, start=tokenizer.pad_token_id,
                 sentinels=range(first, first + len(SENTINELS)),
                 line_breaks=np.array([token.startswith(LINE_BREAK) for token in written]),
                 blank_lines=np.array([token.startswith(2 * LINE_BREAK) for token in written]))


def documents(pairs: Sequence[Pair], tokenizer: Any) -> TokenDataset:
    """Pairs as the loss reads documents. A token of byte-level BPE has as many characters as it stands for bytes."""
    written = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    sizes = np.array([len(token) for token in written])
    names = [str(number) for number in range(len(pairs))]
    return TokenDataset(
        ids=np.concatenate([pair.target for pair in pairs]), loss_mask=np.ones(sum(len(p.target) for p in pairs), bool),
        offsets=np.cumsum([0, *(len(pair.target) for pair in pairs)], dtype=np.int64),
        num_bytes=np.array([sizes[pair.target].sum() for pair in pairs]), items=names, clusters=names,
        source_ids=np.concatenate([pair.source for pair in pairs]),
        source_offsets=np.cumsum([0, *(len(pair.source) for pair in pairs)], dtype=np.int64))


def _five_gram_bits(model: ngram.NgramModel, pairs: Sequence[Pair]) -> float:
    """The bits of all suffixes, each given the last tokens of its prefix."""
    total = 0.0
    for pair in pairs:
        context = pair.source[-1 - CONTEXT_TOKENS:-1]  # without the end token
        total += float(ngram.bits(model, np.concatenate([context, pair.target]))[CONTEXT_TOKENS:].sum())
    return total


TINY_T5 = T5Recipe(
    "tiny-t5", encoder_layers=2, decoder_layers=2, width=256, heads=4, inner=1024, activation="relu", vocabulary=8224,
    embeddings_of="tiny-gpt", embedding_std=0.05, block_scale=0.3, neighbour_bias=4.0, prefix_share=0.55, lines_share=0.1,
    source_tokens=(16, 384), target_tokens=(64, 384), lines_tokens=(4, 64), noise_density=0.2, mean_span_tokens=3.0,
    corrupted_target="text", copied_first=12_800, copied_tokens=(16, 128), learning_rate=0.006, batch_sequences=32,
    micro_batch=8, tokens=30_000_000, weight_decay=0.1, warmup=0.03, final=0.02, precision="bf16")
