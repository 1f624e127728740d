"""The model of a phase: a base with the instances that its slots hold, as training, prediction and profiling need it.

A training stage's folder describes its model completely: `state.json` (every instance so far, `spec/slots.py`) and
`weights/<instance>/`. What a phase did not touch is linked from the phase before, byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrial import catalog
from finetrial.errors import UserError
from finetrial.records.results import Routing
from finetrial.spec.arm import read_method
from finetrial.spec.model import check_packages
from finetrial.spec.slots import Instance, State, advance, answering
from finetrial.stages.base import StageContext, StageInput
from finetrial.streams import Streams
from finetrial.train.config import BITSANDBYTES, EIGHT_BIT

if TYPE_CHECKING:
    from finetrial.methods.base import Component
    from finetrial.models.load import LoadedBase

STATE = "state.json"
WEIGHTS = "weights"  # one folder an instance
LIVE = "adapted"  # in StageContext.shared: (what it is, the model in memory)
_LIVE_DIGEST = "adapted_digest"  # and its weights' digest, once it was asked for


@dataclass(frozen=True)
class Adapted:
    """A loaded base and the components that this phase trains, in the arm's order; all else in it is frozen."""

    base: LoadedBase
    components: list[Component]
    state: State = field(default_factory=State)
    active: Mapping[str, Component] | None = None  # every attached instance, by name

    @property
    def digest(self) -> str:
        """SHA-256 over all weights that answer: base, merged and active instances."""
        from finetrial.models.params import digest

        return digest(dict(self.base.model.named_parameters()))


def instance_folder(instance: Instance) -> str:
    """Where an instance's weights lie below `weights/`: its slot, and from the second on its number."""
    return instance.slot if instance.number == 1 else instance.name


def begin(spec: Mapping[str, Any], base_folder: str, *, parent: Path | None = None,
          before: Sequence[Mapping[str, Any]] = (), device: str = "cpu", base: LoadedBase | None = None) -> Adapted:
    """The model with which a phase begins: the instances of the phase before (`parent`, its folder), carried on.

    `before` lists task and components of earlier phases where there is no parent: they are attached untrained, for
    measuring cost. Components to train are owned; everything else is frozen. A quantised base is loaded to `device`;
    a `base` that is loaded already is changed in place. Raises UserError where bitsandbytes would compute in another
    version than the key holds.
    """
    _check_bitsandbytes(spec)
    earlier = read_state(parent) if parent is not None else State()
    for number, done in enumerate(before, start=1):
        earlier, _ = advance(earlier, number, done["task"], done["components"])
    state, trained = advance(earlier, spec.get("phase", len(before) + 1), spec["task"], spec["components"])
    held = {instance.name for instance in earlier.instances}
    folders = {i.name: parent / WEIGHTS / instance_folder(i) for i in state.instances
               if parent is not None and i.name in held}
    base = base or loaded(spec, base_folder, device)
    return _assemble(spec, base, state, answering(state, "latest"), folders, [i.name for i in trained])


def reopen(context: StageContext, *, dequantized: bool = False) -> Adapted:
    """The model that the stage of the input `model` left, with the instances that answer. Nothing is owned."""
    trained = context.inputs["model"]
    spec = trained.record.identity["spec"]
    base = loaded(spec, context.locations["base"], context.device, dequantized=dequantized)
    return assembled(spec, base, trained.folder, trained.folder / WEIGHTS,
                     routing=context.spec.get("routing", "latest"), task=context.spec.get("task", ""))


def assembled(spec: Mapping[str, Any], base: LoadedBase, state: Path, weights: Path, *, routing: Routing = "latest",
              task: str = "") -> Adapted:
    """The same from a base, a folder with `state.json` and one with the instances' weights."""
    held = read_state(state)
    folders = {instance.name: weights / instance_folder(instance) for instance in held.instances}
    return _assemble(spec, base, held, answering(held, routing, task), folders, [])


def answering_model(context: StageContext) -> Adapted:
    """The model that a prediction asks for: live where this process holds it, else made from files.

    `context.spec` may name `routing` and `task`; without the input `model` it is the untouched base.
    """
    spec, trained = context.spec, context.inputs.get("model")
    routing, task = spec.get("routing", "latest"), spec.get("task", "")
    what = (trained.record.stage_id if trained is not None else "the untouched base", routing, task)
    held, live = context.shared.get(LIVE, (None, None))
    if held == what:
        assert isinstance(live, Adapted)
        return live
    if trained is None:
        adapted = Adapted(loaded(spec, context.locations["base"], context.device), [])
    else:
        adapted = reopen(context)
    _keep_live(context, what, adapted)
    return adapted


def answer_with(context: StageContext, adapted: Adapted) -> None:
    """Let later stages of this process ask the model that this one has trained, as it is now."""
    _keep_live(context, (context.stage_id, "latest", ""), adapted)


def answer_digest(context: StageContext, adapted: Adapted) -> str:
    """`adapted.digest`, taken once for the model that this process holds for later stages: nothing changes its weights."""
    if context.shared.get(LIVE, (None, None))[1] is not adapted:
        return adapted.digest
    if _LIVE_DIGEST not in context.shared:
        context.shared[_LIVE_DIGEST] = adapted.digest
    found: str = context.shared[_LIVE_DIGEST]
    return found


def untouched_base(context: StageContext) -> LoadedBase:
    """A fresh load of the base, without any component."""
    return loaded(context.spec, context.locations["base"], context.device)


def forget_live(context: StageContext) -> None:
    """Let later stages of this process make their model from files: the one in memory is about to be changed."""
    context.shared.pop(LIVE, None)
    context.shared.pop(_LIVE_DIGEST, None)


def _keep_live(context: StageContext, what: tuple[str, str, str], adapted: Adapted) -> None:
    forget_live(context)
    context.shared[LIVE] = (what, adapted)


def keep(adapted: Adapted, folder: Path, parent: StageInput | None) -> None:
    """Write the state and the weights of every instance: trained ones saved, the others linked from `parent`."""
    assert adapted.active is not None
    trained = {id(component) for component in adapted.components}
    for instance in adapted.state.instances:
        place = folder / WEIGHTS / instance_folder(instance)
        component = adapted.active.get(instance.name)
        if component is not None and id(component) in trained:
            component.save(place)
        else:
            assert parent is not None, f"{instance.name} is neither trained nor inherited"
            link_tree(parent.folder / WEIGHTS / instance_folder(instance), place)
    write_state(folder, adapted.state)


def read_state(folder: Path) -> State:
    """The instances of the model that a training stage left."""
    return State(tuple(Instance.from_dict(row) for row in json.loads((folder / STATE).read_text(encoding="utf-8"))))


def write_state(folder: Path, state: State) -> None:
    """`state.json`."""
    rows = [instance.as_dict() for instance in state.instances]
    (folder / STATE).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def streams_of(spec: Mapping[str, Any]) -> Streams:
    """The random streams of a cell."""
    return Streams(spec["seed"], spec.get("replicate", ""))


def link_tree(source: Path, target: Path) -> None:
    """Hard links where the file system allows them, copies elsewhere; what was there before is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)


def loaded(spec: Mapping[str, Any], base_folder: str, device: str = "cpu", *, dequantized: bool = False) -> LoadedBase:
    """The base as a stage's spec holds it, or with the values of its quantised matrices in fp32. Raises ModelError where its
    files are not those of the spec's digest any more, UserError where another version of bitsandbytes would quantise them."""
    from finetrial.models.files import MODEL_FILES, check_unchanged
    from finetrial.models.load import load_base

    if quantization := spec.get("quantization"):
        check_packages(spec.get(catalog.PACKAGES, {}), f"quantization: {quantization}")
    base = load_base(Path(base_folder), attention=spec["attention"], quantization=spec.get("quantization"),
                     dequantized=dequantized, device=device)
    check_unchanged(Path(base_folder), MODEL_FILES, spec["base"])
    return base


def _check_bitsandbytes(spec: Mapping[str, Any]) -> None:
    """Raise UserError where what bitsandbytes computes would be kept under the key of another version, or of none."""
    quantization = spec.get("quantization")
    if quantization is None and spec["training"].get("optimizer") != EIGHT_BIT:
        return
    planned = spec.get(catalog.PACKAGES, {})
    purpose = f"quantization: {quantization}" if quantization else f"the optimizer {EIGHT_BIT}"
    if not planned and (found := catalog.installed_version(BITSANDBYTES)):
        raise UserError(f"{BITSANDBYTES} is {found} here, and the study was planned where it is not installed: its version "
                        f"belongs to the key of what is computed with {purpose}",
                        f"install {BITSANDBYTES}=={found} where the study is planned, and run it again")
    check_packages(planned, purpose)


def _assemble(spec: Mapping[str, Any], base: LoadedBase, state: State, active: Sequence[Instance],
              folders: Mapping[str, Path], trained: Sequence[str]) -> Adapted:
    """Base, then what was merged in the order of merging, then the active instances in order of birth.

    Each is given its weights before the next is attached: a copied block, or an adapter that starts from the weights
    it adapts, then starts from what earlier instances made of them.
    """
    from finetrial.models import params

    streams = streams_of({"seed": 0, **spec})
    attached: dict[str, Component] = {}
    for instance in (*state.merged, *active):
        component = attach(base, instance, streams)
        if instance.name in folders:
            component.load(folders[instance.name])
        if instance in active:
            attached[instance.name] = component
        else:
            component.merge()
    components = [attached[name] for name in trained]
    frozen = [component for name, component in attached.items() if name not in trained]
    params.own(base.model, components, frozen)  # what no component owns is frozen
    return Adapted(base, components, state, attached)


def attach(base: LoadedBase, instance: Instance, streams: Streams) -> Component:
    """The instance's method attached to the base, with the weights that it starts from."""
    method = read_method(instance.method)
    number = "" if instance.number == 1 else str(instance.number)
    component: Component = method.attach(base.model, streams, instance.slot, number)
    return component
