"""The memory that each kind of stage needs, in bytes, added up from what `train/`, `generate/` and the stages hold.

    training    weights + what the optimizer keeps + the larger of two moments: the end of the forward pass (everything
                kept, casts of weights, logits of a chunk) and the end of the backward pass (all gradients). On a GPU in
                mixed precision a third one counts: validation, for which frozen weights are there in fp32. (What else it
                needs is no obstacle: its batches are halved where memory is short)
    prediction  weights + one block's tensors over a batch + logits of a chunk
    probe       as prediction, with the weights of two models
    generation  weights + keys and values of all slots + logits of the slots

Everything is held in fp32 but what an arm quantises; mixed precision adds a 2-byte copy of every matrix inside the
blocks: of a frozen one for the whole phase, in whose place on a GPU (`train/precision.py`), of a trained one from the
forward to the backward pass (autocast's cache).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from finetrial.plan.forecast.activations import FP32, Pass, kept_bytes, mask_bytes, working_bytes
from finetrial.plan.forecast.shapes import ModelShapes
from finetrial.plan.forecast.trained import Trained

ADAMW_BYTES = 8  # two moments in fp32 (Loshchilov & Hutter 2019)
MUON_BYTES = 4  # one momentum, of matrices inside blocks
EIGHT_BIT_BYTES = 2 * (1 + FP32 / 256)  # two moments in 8 bits, a scale for each 256 (Dettmers et al. 2022, arXiv 2110.02861)
HALF = 2
# Dettmers et al. 2023 (arXiv 2305.14314), section 3: 4 bits a weight, and double-quantised constants, 0.127 bits
NF4_BYTES = (4 + 0.127) / 8
CHUNK_LOGITS, CHUNK_LOGITS_ON_CUDA = 1 << 22, 1 << 25  # as in train/loss.py; a test holds them together, and the four below
DRAWN_BYTES = 6 * 8  # generate/sampling.py: scores, probabilities, their order and sums, each of 8 bytes a token
PREDICT_TOKENS = 8192  # train/loss.py, item_losses
DECODE_TOKENS = 1 << 15  # generate/decoding.py
PREFILL_TOKENS = 4096  # generate/live.py


@dataclass(frozen=True)
class Need:
    """Bytes at the worst moment, and what they are for. The parts add up to the peak."""

    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The sum."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Step:
    """How a phase trains: rows and tokens of a step, rows at a time, and what they are computed in."""

    rows: int
    length: int
    micro_batch: int
    mixed: bool = False
    optimizer: str = "adamw"
    eager: bool = False
    masked: bool = False
    checkpointing: bool = False
    four_bit: bool = False  # frozen matrices inside the blocks in nf4
    offload: bool = False  # the fp32 originals of frozen matrices wait in the host's memory while steps are computed
    processes: int = 1  # that share the rows, a device each
    split: bool = False  # they hold parameters, gradients and the optimizer's state between them
    on_gpu: bool = False

    @property
    def accumulates(self) -> bool:
        """Whether a process takes several micro-batches in a step, and so has gradients during a forward pass."""
        return self.micro_batch * self.processes < self.rows

    def share(self, num_bytes: float) -> int:
        """Of what a split model holds, the part of one process."""
        return math.ceil(num_bytes / self.processes) if self.split else int(num_bytes)

    @property
    def one_pass(self) -> Pass:
        """The forward pass of one micro-batch."""
        return Pass(self.micro_batch, self.length, HALF if self.mixed else FP32, self.eager, self.masked,
                    self.checkpointing, repeats_keys=self.on_gpu and not self.mixed)


def training(shapes: ModelShapes, trained: Trained, step: Step) -> Need | None:
    """What a phase needs; None where its method cannot count its parameters without a model."""
    if trained.parameters is None:
        return None
    run = step.one_pass
    casts = _casts(shapes, trained, step) if step.mixed else 0
    head = shapes.embedding * FP32 if trained.embedding else 0  # the head's gradient, taken on the way forward
    gradients = step.share(trained.parameters * FP32)
    weights = _weights(shapes, trained, step)
    at_forward = {"weights": weights, "gradients": gradients if step.accumulates else 0,
                  "activations": kept_bytes(shapes, trained, run) + mask_bytes(shapes, run) + casts
                  + working_bytes(shapes, run), "logits": _loss_bytes(shapes, run, step.on_gpu) + 2 * head}
    whole = _whole_gradients(shapes, trained) if step.split else 0
    at_backward = {"weights": weights, "gradients": gradients + whole, "activations": working_bytes(shapes, run), "logits": head}
    moments = [at_forward, at_backward]
    if step.offload:
        judged = prediction(shapes, step.length, eager=step.eager, on_gpu=step.on_gpu).parts
        moments.append({**judged, "weights": _weights(shapes, trained, replace(step, mixed=False)), "gradients": 0})
    worst = max(moments, key=lambda moment: sum(moment.values()))
    return Need({"weights": worst["weights"], "optimizer": step.share(optimizer_bytes(trained, step.optimizer)), **worst})


def optimizer_bytes(trained: Trained, optimizer: str) -> int:
    """What the optimizer keeps between steps. Adapters and new blocks count as matrices."""
    assert trained.parameters is not None
    if optimizer == "paged_adamw_8bit":
        return int(trained.parameters * EIGHT_BIT_BYTES)
    matrices = trained.matrices + trained.added if optimizer == "muon" else 0
    return matrices * MUON_BYTES + (trained.parameters - matrices) * ADAMW_BYTES


def prediction(shapes: ModelShapes, length: int, *, eager: bool, on_gpu: bool = False) -> Need:
    """What predicting losses needs: batches of PREDICT_TOKENS places in fp32, and no gradients."""
    run = Pass(max(1, PREDICT_TOKENS // length), length, eager=eager)
    chunk = _chunk_logits(shapes, run.tokens, on_gpu)
    return Need({"weights": shapes.parameters * FP32,
                 "activations": working_bytes(shapes, run) + mask_bytes(shapes, run), "logits": 2 * chunk * FP32})


def probe(shapes: ModelShapes, length: int, *, eager: bool, on_gpu: bool = False) -> Need:
    """What a probe needs: prediction by two models, and of one chunk their two distributions and what is computed of them."""
    alone = prediction(shapes, length, eager=eager, on_gpu=on_gpu).parts
    return Need({**alone, "weights": 2 * alone["weights"], "logits": alone["logits"] // 2 * 5})


def generation(shapes: ModelShapes, num_rows: int, prompt_tokens: int, new_tokens: int, *, sampled: bool = False,
               beams: int = 1, copies: bool = False) -> Need:
    """What generating in fp32 needs: slots as wide as the longest prompt with its answer, as many as are filled; where tokens
    are drawn also their probabilities, in several orders; with several beams log-probabilities. `copies`: of the matrices in bf16, beside them."""
    width = prompt_tokens + new_tokens
    slots = max(beams, min(num_rows, DECODE_TOKENS // width // beams * beams))
    decoder = shapes.stacks[-1]
    cache = 2 * decoder.depth * decoder.key_width * slots * width * FP32
    if shapes.encoder_decoder:  # what the decoder sees of the prompt, and the encoder's states
        cache += slots * prompt_tokens * (2 * decoder.depth * decoder.attention_width + shapes.width) * FP32
    prefill = Pass(max(1, PREFILL_TOKENS // prompt_tokens), prompt_tokens, eager=shapes.encoder_decoder)
    return Need({"weights": shapes.parameters * FP32 + (shapes.matrices * HALF if copies else 0), "cache": cache,
                 "activations": working_bytes(shapes, prefill),
                 "logits": slots * shapes.vocabulary * (2 * FP32 + (DRAWN_BYTES if sampled else 0) + (FP32 if beams > 1 else 0))})


def _weights(shapes: ModelShapes, trained: Trained, step: Step) -> int:
    """Of frozen matrices: 4 bits, with the widest one unpacked; or 4 bytes, in mixed precision 6, or with the originals
    on the host 2. Of a split model a part of all in 4 bytes; whole are what lies outside the blocks, the block that
    computes, and the next one, which is on its way."""
    if step.split:
        whole = 2 * _block(shapes, trained) + shapes.parameters - shapes.matrices
        return step.share((shapes.parameters + trained.added) * FP32) + whole * FP32
    frozen = shapes.matrices - trained.matrices
    packed = shapes.quantizable if step.four_bit else 0
    plain = frozen - packed
    each = FP32 if not step.mixed else HALF if step.offload else FP32 + HALF
    widest = max(shapes.width * max(stack.inner, stack.attention_width) for stack in shapes.stacks)
    unpacked = widest * (HALF if step.mixed else FP32) if packed else 0
    rest = shapes.parameters + trained.added - frozen
    return int(rest * FP32 + plain * each + packed * NF4_BYTES + unpacked)


def _block(shapes: ModelShapes, trained: Trained) -> int:
    """Parameters of the largest block, with its share of what was added to them all."""
    return max(stack.matrices(shapes.width) for stack in shapes.stacks) + trained.added // sum(stack.depth for stack in shapes.stacks)


def _whole_gradients(shapes: ModelShapes, trained: Trained) -> int:
    """Of a split model: of one block before they are summed and split, and of what lies outside, until the pass ends."""
    assert trained.parameters is not None
    outside = shapes.parameters - shapes.matrices if trained.embedding else 0
    return (min(trained.parameters, _block(shapes, trained)) + outside) * FP32


def _casts(shapes: ModelShapes, trained: Trained, step: Step) -> int:
    """Two-byte copies, for a pass, of trained matrices and the head. A split model has no others: of all its matrices, but
    with checkpointing of one block's."""
    inside = trained.matrices + trained.added
    if step.split:
        inside = _block(shapes, trained) if step.checkpointing else shapes.matrices + trained.added
    return (inside + shapes.embedding) * HALF


def _loss_bytes(shapes: ModelShapes, run: Pass, on_gpu: bool) -> int:
    """Logits and their slopes of one chunk of targets, and the gradient of every target's hidden state. In mixed
    precision both exist in either type for a moment."""
    each = 2 * FP32 + (2 * HALF if run.mixed else 0)
    return _chunk_logits(shapes, run.tokens, on_gpu) * each + run.tokens * shapes.width * (FP32 + run.product)


def _chunk_logits(shapes: ModelShapes, num_targets: int, on_gpu: bool) -> int:
    """Logits that exist at a time, of at most `num_targets` targets."""
    most = CHUNK_LOGITS_ON_CUDA if on_gpu else CHUNK_LOGITS
    return min(num_targets, max(1, most // shapes.vocabulary)) * shapes.vocabulary
