"""What a run trained, for use afterwards: models made again from a run's folder, merged, exported, asked.

    adapted = open_arm(Path("runs/perplexity-embedded-demo"), "lora-r8")    # seed 0, last phase, at the chosen rate
    adapted.base.model.generate(...)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrial.errors import UserError, unknown
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.build import Resolved
from finetrial.plan.specs import attention
from finetrial.spec.io import read_study
from finetrial.spec.slots import Routing
from finetrial.spec.study import BASE_ARM, Study

if TYPE_CHECKING:
    from finetrial.stages.adapted import Adapted

PROBE_TEXT = "def add(a, b):\n    return a + b\n"


@dataclass(frozen=True)
class Trained:
    """Where the weights of one arm and seed lie, after its last phase unless another was asked for."""

    study: Study
    base: ResolvedBase
    arm: str
    seed: int
    folder: Path  # artifacts/.../phase-<k>-<task>: state.json and a folder an instance


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and how far the merged model's logits are from the unmerged one's."""

    folder: Path
    largest_difference: float | None  # None where nothing was merged


def find_trained(run: Path, arm: str, *, seed: int | None = None, base: str | None = None,
                 sequence: str | None = None, phase: int | None = None) -> Trained:
    """The weights of an arm in a run's folder. Raises UserError with what there is."""
    study, relative_to = _study_of(run)
    arms = [one.name for one in study.arms]
    if arm not in arms:
        raise UserError(unknown("arm", arm, arms), f"finetrial show {run.name} lists them")
    name = base or study.bases[0].name
    bases = {one.name: one for one in study.bases}
    if name not in bases:
        raise UserError(unknown("base", name, bases))
    path = sequence or study.paths[0].name
    seeds = study.seeds if seed is None else (seed,)
    folder = run / "artifacts" / name / arm / path / f"seed-{seeds[0]}"
    phases = sorted(folder.glob("phase-*"), key=lambda place: int(place.name.split("-")[1]))
    wanted = [place for place in phases if phase is None or place.name.startswith(f"phase-{phase}-")]
    if not wanted:
        there = sorted(str(place.relative_to(run / "artifacts")) for place in (run / "artifacts").glob("*/*/*/seed-*"))
        raise UserError(f"{folder} holds no trained weights" + ("" if phase is None else f" of phase {phase}"),
                        f"there are: {', '.join(there) or 'none yet'}")
    return Trained(study, resolve_base(bases[name], relative_to), arm, seeds[0], wanted[-1])


def open_arm(run: Path, arm: str, *, routing: Routing = "latest", task: str = "", **which: Any) -> Adapted:
    """The model of an arm in memory. `arm` may be `base`, the untouched one."""
    from finetrial.models.load import load_base
    from finetrial.stages.adapted import Adapted, assembled

    if arm == BASE_ARM:
        study, relative_to = _study_of(run)
        base = resolve_base(study.bases[0], relative_to)
        return Adapted(load_base(base.folder, attention=attention(base, Resolved())), [])
    found = find_trained(run, arm, **which)
    spec = {"attention": attention(found.base, Resolved()), "seed": found.seed}
    return assembled(spec, str(found.base.folder), found.folder, found.folder, routing=routing, task=task)


def export(run: Path, arm: str, output: Path, *, merged: bool, command: str, **which: Any) -> Exported:
    """Write an arm's weights for plain transformers and peft.

    Merged: one model folder with tokenizer and card; the logits of the merged model are compared with those of the
    unmerged one and the difference is returned and written. Otherwise the instances' folders as they were trained.
    """
    from finetrial.stages.adapted import link_tree

    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty", "name a folder that does not exist yet")
    found = find_trained(run, arm, **which)
    if not merged:
        link_tree(found.folder, output)
        _write_card(found, output, None, command)
        return Exported(output, None)
    adapted = open_arm(run, arm, **which)
    before = _logits(adapted)
    assert adapted.active is not None
    for component in adapted.active.values():
        component.merge()
    difference = float((_logits(adapted) - before).abs().max())
    adapted.base.model.save_pretrained(output)
    adapted.base.tokenizer.save_pretrained(output)
    _write_card(found, output, difference, command)
    return Exported(output, difference)


def ask(run: Path, arms: list[str], prompt: str, max_new_tokens: int) -> Mapping[str, str]:
    """What each arm (and `base`) writes after the prompt, greedily: arm -> text."""
    from finetrial.generate import decode

    answers = {}
    for arm in arms:
        adapted = open_arm(run, arm)
        tokenizer = adapted.base.tokenizer
        ids = tokenizer(prompt)["input_ids"]
        answer = decode(adapted.base.model, tokenizer, [ids], max_new_tokens=max_new_tokens)[0]
        answers[arm] = tokenizer.decode(answer.ids, skip_special_tokens=True)
    return answers


def _study_of(run: Path) -> tuple[Study, Path | None]:
    for name in ("study.yaml", "run.json"):
        if not (run / name).is_file():
            raise UserError(f"{run} is not a run: it has no {name}", "finetrial status lists the runs")
    how = json.loads((run / "run.json").read_text(encoding="utf-8"))
    relative_to = Path(how["relative_to"]) if how["relative_to"] else None
    return read_study(run / "study.yaml", relative_to), relative_to


def _logits(adapted: Adapted) -> Any:
    """Logits on a short text, in fp32."""
    import torch

    model, ids = adapted.base.model, adapted.base.tokenizer(PROBE_TEXT, return_tensors="pt")["input_ids"]
    model.eval()
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **more).logits.clone()


def _write_card(found: Trained, output: Path, difference: float | None, command: str) -> None:
    how = "Merged into one model" if difference is not None else "Weights as they were trained, a folder an instance"
    lines = [f"# {found.arm} on {found.base.name}", "",
             f"{how}; from the finetrial study `{found.study.name}`, seed {found.seed}, {found.folder.name}.", "",
             f"Question of the study: {found.study.question}", ""]
    if difference is not None:
        lines += [f"Largest difference of a logit between merged and unmerged, on a short text in fp32: {difference:.2g}.", ""]
    lines += ["Made with:", "", f"    {command}", ""]
    (output / "README.md").write_text("\n".join(lines), encoding="utf-8")
