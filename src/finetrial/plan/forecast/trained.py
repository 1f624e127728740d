"""What the components of a phase train, and how far back gradients must reach for it.

A block below every trained parameter keeps nothing for the backward pass; a frozen block above one keeps what its
activation, its norms and its attention need; the input of a matrix is kept where the matrix is trained or an adapter
reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finetrial.errors import ModelError
from finetrial.methods.base import Method
from finetrial.models import block_sizes
from finetrial.models.shapes import ARCHITECTURES, linear_shapes
from finetrial.models.targets import chosen
from finetrial.plan.forecast.shapes import Config, ModelShapes, Stack

# The inputs of a block's matrices, by the endings of the matrices' paths. `c_proj` is two of them.
ROLES: Mapping[str, tuple[str, ...]] = {
    "attention": ("c_attn", "q_proj", "k_proj", "v_proj", "q", "k", "v"), "out": ("o_proj", "o"),
    "mlp": ("c_fc", "gate_proj", "up_proj", "wi", "wi_0", "wi_1"), "down": ("down_proj", "wo")}


@dataclass(frozen=True)
class Reached:
    """One stack: how many of its blocks gradients pass, how many of these are trained as a whole, how many are `new`
    (and in both numbers), and in each other one how many matrices keep their input (`readers`, by role)."""

    passed: int = 0
    whole: int = 0
    new: int = 0
    readers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a phase trains. `parameters` is None where a method cannot count them without a model; `added` are those
    beside the base's own; `matrices` are the base's own trained matrices inside blocks."""

    parameters: int | None
    added: int
    matrices: int
    stacks: tuple[Reached, ...]
    embedding: bool = False
    rank: int = 0  # of the adapters that read
    assumed: tuple[str, ...] = ()
    takes_quantized: bool = False  # all of it can be trained on a base in 4 bits


def trained_by(methods: Sequence[Method], shapes: ModelShapes, config: Config) -> Trained:
    """What some methods train together. Raises ModelError where a method does not fit the model."""
    each = [_of_method(method, shapes, config) for method in methods]
    counts = [one.parameters for one in each]
    stacks = [_together([one.stacks[number] for one in each]) for number in range(len(shapes.stacks))]
    if shapes.encoder_decoder and stacks[0].passed:  # the decoder's first block reads the encoder
        stacks[1] = replace(stacks[1], passed=shapes.stacks[1].depth + stacks[1].new)
    return Trained(sum(count for count in counts if count is not None) if None not in counts else None,
                   sum(one.added for one in each), sum(one.matrices for one in each), tuple(stacks),
                   any(one.embedding for one in each), max((one.rank for one in each), default=0),
                   tuple(dict.fromkeys(text for one in each for text in one.assumed)),
                   all(method.takes_quantized for method in methods))


def every_reader(shapes: ModelShapes, stack: Stack) -> dict[str, float]:
    """The matrices of a block by what they read."""
    readers = {"attention": 1.0 if shapes.fused else 3.0, "out": 1.0, "mlp": 2.0 if stack.gated else 1.0, "down": 1.0}
    return {**readers, "cross": 1.0, "source": 2.0, "cross out": 1.0} if stack.cross else readers


def _together(parts: Sequence[Reached]) -> Reached:
    readers: dict[str, float] = {}
    for part in parts:
        for role, count in part.readers.items():
            readers[role] = max(readers.get(role, 0.0), count)
    new = sum(part.new for part in parts)
    passed = max((part.passed - part.new for part in parts), default=0)
    return Reached(passed + new, sum(part.whole for part in parts), new, readers)


def _of_method(method: Method, shapes: ModelShapes, config: Config) -> Trained:
    count = method.count_trainable(config)
    if method.kind == "full":
        return Trained(shapes.parameters, 0, shapes.matrices, tuple(Reached(s.depth, s.depth) for s in shapes.stacks),
                       embedding=True)
    known = config.get("model_type") in ARCHITECTURES and linear_shapes(config) is not None
    if known and method.kind == "lora":
        return _adapters(method, count, shapes, config)
    if known and method.kind in ("layer", "unfreeze"):
        return _blocks(method, count, shapes)
    stacks = tuple(Reached(stack.depth, readers=every_reader(shapes, stack)) for stack in shapes.stacks)
    return Trained(count, count or 0, 0, stacks,
                   assumed=(f"{method.kind}: gradients are taken to reach every block, and every matrix to keep its input",))


def _adapters(method: Any, count: int | None, shapes: ModelShapes, config: Config) -> Trained:
    """LoRA: gradients reach from the first adapted block of a stack upwards."""
    layers = linear_shapes(config)
    assert layers is not None
    adapted = chosen(method.targets, config["model_type"], layers, "LoRA")
    stacks = []
    for path, stack in zip(ARCHITECTURES[config["model_type"]].stacks, shapes.stacks, strict=True):
        inside = [name.removeprefix(f"{path}.") for name in adapted if name.startswith(f"{path}.")]
        passed = stack.depth - min((int(name.partition(".")[0]) for name in inside), default=stack.depth)
        readers: dict[str, float] = {}
        for name in inside:
            readers[_role(name)] = readers.get(_role(name), 0.0) + 1 / passed
        stacks.append(Reached(passed, readers=readers))
    return Trained(count, count or 0, 0, tuple(stacks), rank=method.rank)


def _blocks(method: Any, count: int | None, shapes: ModelShapes) -> Trained:
    """New blocks, or some of the base's own: gradients reach down to the lowest."""
    new, embeddings = method.kind == "layer", getattr(method, "embeddings", False)
    stacks = [Reached(stack.depth if embeddings else 0) for stack in shapes.stacks]  # what is embedded enters every stack
    for number in block_sizes.stack_indices(shapes.encoder_decoder, method.stack):
        depth = shapes.stacks[number].depth
        places = method.gaps(depth) if new else method.chosen_blocks(depth)
        passed = depth - (0 if embeddings else min(places))
        stacks[number] = Reached(passed + (len(places) if new else 0), len(places), len(places) if new else 0)
    matrices = 0 if new else sum(reached.whole * stack.matrices(shapes.width)
                                 for reached, stack in zip(stacks, shapes.stacks, strict=True))
    return Trained(count, (count or 0) if new else 0, matrices, tuple(stacks), embeddings)


def _role(path: str) -> str:
    """What the matrix at a path inside a block reads."""
    ending = path.rpartition(".")[2]
    if ending == "c_proj":
        return "out" if "attn." in path else "down"
    role = next((role for role, endings in ROLES.items() if ending in endings), None)
    if role is None:
        raise ModelError(f"the forecast does not know what the matrix {path} reads", "report it as a defect")
    if "EncDecAttention" not in path:
        return role
    return "cross out" if role == "out" else "cross" if ending == "q" else "source"
