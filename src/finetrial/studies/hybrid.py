"""LoRA and a new layer together: do they add up, and may the layer be shared between tasks?

    finetrial run hybrid --size demo      the 2 x 2 of LoRA and layer, three seeds
    finetrial run hybrid                  seven arms, five seeds
    finetrial run hybrid --size thorough  both orders, half the parameters moved from layer to LoRA, joint training, each alone
    finetrial run hybrid --scale full     codet5-small on CodeSearchNet, r=16, a layer at the end of the encoder

Python (`pycode`), then JavaScript (`jscode`). Experiment 1, task-specific: LoRA and layer are new for each task.
Experiment 2, shared layer: LoRA is new, the layer of the first task is used again, frozen or trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from finetrial.methods.layer import Layer
from finetrial.methods.lora import Lora
from finetrial.methods.unfreeze import Unfreeze
from finetrial.spec import (
    Arm,
    Base,
    Carry,
    Component,
    Contrast,
    Controls,
    Evaluation,
    Hypothesis,
    Match,
    PositiveControl,
    Sequence,
    Study,
)
from finetrial.spec.study import BASE_ARM
from finetrial.studies.arms import BUNDLED, HUB, Rates, lora
from finetrial.studies.as_published import hybrid
from finetrial.studies.base import EMBEDDED, FULL, BuiltIn
from finetrial.studies.lora_vs_layer import (
    CODET5,
    EXPOSED,
    JAVASCRIPT,
    OLD,
    PUBLISHED,
    PYTHON,
    code_tasks,
    grids,
    hub_tasks,
    hub_training,
    matched_lora,
    swapped,
)
from finetrial.train.config import Budget, Training

FORWARD, BACKWARD = "py-js", "js-py"
QUESTION = "How do LoRA and a new layer interact, and does sharing the layer between tasks help or hurt?"
RANK, TARGETS = 8, "all-linear"


class Hybrid(BuiltIn):
    """The study of hybrids."""

    summary: ClassVar[str] = "LoRA and a new layer together, task-specific or shared"

    def make(self, scale: str, size: str) -> Study:
        """The study at one of three sizes of a scale."""
        return _full(size) if scale == FULL else self._embedded(size)

    def _embedded(self, size: str) -> Study:
        demo, thorough = size == "demo", size == "thorough"
        return Study(
            name="hybrid", scale=EMBEDDED, size=size, question=QUESTION, bases=(Base(name="tiny-gpt"),),
            tasks=code_tasks(), sequences=_sequences(size),
            arms=_arms(size, Parts(lora(RANK, TARGETS), Layer(), BUNDLED, narrow=256)),
            evaluation=Evaluation(routings=("latest",) if demo else ("latest", "oracle"), rates="chosen"),
            controls=Controls(reference="lora", positive=PositiveControl(arm="lora", task=OLD),
                              single_task=thorough, joint=thorough),
            hypotheses=_hypotheses(size),
            training=Training(budget=Budget(amount=60 if size == "thorough" else 40, unit="steps"), sequence_length=256,
                              batch_sequences=4),
            seeds=tuple(range(3 if demo else 5)), factors=("method", "rank", "targets", "sharing"),
            notes=("tiny-gpt has 5 million parameters: results on it are results on a tiny model",))

    def make_as_published(self) -> Study:
        """The two published experiments, and the same over several seeds and rates."""
        return hybrid.study()


@dataclass(frozen=True)
class Parts:
    """What the arms of a scale are made of."""

    adapter: Lora
    layer: Layer
    rates: Rates
    narrow: int  # units of the MLP of a layer that leaves about half of the parameters to LoRA: a quarter of the base's

    def components(self, carry: Carry) -> tuple[Component, Component]:
        """The layer, carried on so, and LoRA, new for each task."""
        return (Component(method=self.layer, slot="layer", carry=carry),
                Component(method=self.adapter, slot="adapter", carry=Carry.FRESH))


def _sequences(size: str) -> tuple[Sequence, ...]:
    forward, backward = Sequence(name=FORWARD, tasks=(PYTHON, JAVASCRIPT)), Sequence(name=BACKWARD, tasks=(JAVASCRIPT, PYTHON))
    return (forward, backward) if size == "thorough" else (forward,)


def _full(size: str) -> Study:
    """codet5-small with the published parts: LoRA r=16 (dropout 0.1) and a layer at the end of the encoder."""
    published = size == "published-budget"
    adapter, layer = Lora(rank=16, targets="attention", dropout=0.1), Layer(stack="encoder")
    parts = Parts(adapter, layer, PUBLISHED if published else HUB, narrow=512)
    return Study(
        name="hybrid", scale=FULL, size=size, question=QUESTION, bases=(CODET5,), tasks=hub_tasks(),
        sequences=_sequences(size), arms=_arms(size, parts),
        evaluation=Evaluation(routings=("latest", "oracle"), rates="chosen"),
        controls=Controls(reference="lora", positive=PositiveControl(arm="lora", task=OLD),
                          single_task=not published, joint=not published),
        hypotheses=_hypotheses(size), training=hub_training(size), seeds=tuple(range(3 if published else 5)),
        factors=("method", "rank", "targets", "sharing"),
        notes=(EXPOSED, *(("the published learning rate, untuned",) if published else ())))


def _both(name: str, label: str, layer: Carry, parts: Parts) -> Arm:
    """LoRA, new for each task, and a layer that is carried on in some way from Python to JavaScript."""
    first, later = parts.components(Carry.CONTINUE), parts.components(layer)
    return Arm(name=name, label=label, components={PYTHON: first, JAVASCRIPT: later}, factors={"lora": 1, "layer": 1},
               **grids(parts.rates.added, parts.rates))


def _everywhere(name: str, label: str, layer: Carry, parts: Parts) -> Arm:
    """The same for tasks in any order."""
    return _both(name, label, layer, parts).model_copy(update={"components": {"*": parts.components(layer)}})


def _split(parts: Parts) -> Arm:
    """As many parameters as the task-specific arm, half of them moved from the layer to LoRA."""
    narrow = replace(parts, layer=parts.layer.model_copy(update={"inner": parts.narrow}))
    arm = _everywhere("split", "LoRA r={value} + narrow layer, new for each task", Carry.FRESH, narrow)
    match = Match(arm="specific", quantity="parameters", option="rank", slot="adapter")
    return arm.model_copy(update={"match": match, **grids(parts.rates.wide or parts.rates.added, parts.rates)})


def _frozen(parts: Parts) -> Arm:
    return _both("shared-frozen", "new LoRA, the first task's layer frozen", Carry.FREEZE, parts)


def _frozen_both_ways(parts: Parts) -> tuple[Arm, Arm]:
    """What a slot holds can only be frozen on the second task, so that either order has an arm of its own."""
    forward = _frozen(parts)
    first, later = forward.components[PYTHON], forward.components[JAVASCRIPT]
    return (forward.model_copy(update={"sequences": (FORWARD,)}),
            forward.model_copy(update={"name": "shared-frozen-back", "label": f"{forward.label} (JavaScript first)",
                                       "components": {JAVASCRIPT: first, PYTHON: later}, "sequences": (BACKWARD,)}))


def _arms(size: str, parts: Parts) -> tuple[Arm, ...]:
    rates, rank, thorough = parts.rates, parts.adapter.rank, size == "thorough"
    both = _everywhere if thorough else _both
    alone = swapped("lora", f"LoRA r={rank} alone", parts.adapter, rates=rates)
    layer = swapped("layer", "new layer alone", parts.layer, rates=rates)
    few = (alone.model_copy(update={"factors": {"lora": 1, "layer": 0}}),
           layer.model_copy(update={"factors": {"lora": 0, "layer": 1}}),
           both("specific", "LoRA + layer, new for each task", Carry.FRESH, parts))
    if size == "demo":
        return few
    return (*few, *(_frozen_both_ways(parts) if thorough else (_frozen(parts),)),
            both("shared-trained", "new LoRA, the first task's layer trained on", Carry.CONTINUE, parts),
            matched_lora("LoRA r={value} (the size of both)", "specific", rates, parts.adapter.dropout),
            *((_split(parts),) if thorough else ()),
            swapped("unfreeze", "the last old layer unfrozen", Unfreeze(last=1), rates=rates))


def _hypotheses(size: str) -> tuple[Hypothesis, ...]:
    """Fixed before the run; judged by chrF, each task answered by its own parts (ORACLE)."""
    oracle = "latest" if size == "demo" else "oracle"
    forward = FORWARD if size == "thorough" else ""

    def better(left: str, right: str, task: str, routing: str = "latest", sequence: str = forward) -> Contrast:
        return Contrast(left=left, right=right, task=task, routing=routing, sequence=sequence, expect="greater", margin=0.01)

    beats_parts = Hypothesis(
        name="H3", statement="Task-specific LoRA + layer beats each component alone on JavaScript"
                             + ("." if size == "demo" else ", LoRA with as many parameters too."),
        all_of=tuple(better("specific", other, JAVASCRIPT)
                     for other in ("lora", "layer", *(() if size == "demo" else ("lora-matched",)))))
    if size == "demo":
        return beats_parts, _interaction(forward)
    # what is frozen answers for Python as the task-specific one does there, so that it is asked about JavaScript only
    frozen = (better("specific", "shared-frozen", JAVASCRIPT, oracle),) if size == "thorough" else ()
    specific = Hypothesis(
        name="H1", statement="Task-specific beats shared on each task.",
        all_of=(*(better("specific", "shared-trained", task, oracle) for task in (PYTHON, JAVASCRIPT)), *frozen))
    transfer = Hypothesis(
        name="H2", statement="A shared layer that is trained on helps JavaScript: it beats the task-specific one there.",
        contrast=better("shared-trained", "specific", JAVASCRIPT), primary=False)
    if size != "thorough":
        return specific, transfer, beats_parts, _interaction(forward)
    back = Hypothesis(
        name="H5", statement="The other way round, too: a layer that was trained on JavaScript first helps Python.",
        contrast=better("shared-trained", "specific", PYTHON, sequence=BACKWARD), primary=False)
    split = Hypothesis(
        name="H6", statement="With as many parameters, it makes no difference on JavaScript whether most of them are in the "
                             "layer, or half of them, or all in LoRA.",
        all_of=tuple(better("specific", other, JAVASCRIPT).model_copy(update={"expect": "equal"})
                     for other in ("split", "lora-matched")), primary=False)
    return specific, transfer, beats_parts, _interaction(forward), back, split


def _interaction(sequence: str) -> Hypothesis:
    """(both - layer) - (LoRA - none), none being the untouched base."""
    contrast = Contrast(left="specific", right="layer", interaction=("lora", BASE_ARM), task=JAVASCRIPT, sequence=sequence,
                        expect="less", margin=0.01)
    return Hypothesis(name="H4", statement="LoRA and the layer do not add up: what LoRA gains on JavaScript is less with "
                                           "the layer than without it.", contrast=contrast, primary=False)
