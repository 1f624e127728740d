"""What a run trained, for use afterwards: models made again from a run's folder, merged, exported, asked.

    adapted = open_arm(Path("runs/perplexity-embedded-demo"), "lora-r8")    # seed 0, last phase, at the chosen rate
    adapted.base.model.generate(...)
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrial.analysis import numbers
from finetrial.errors import UserError, unknown
from finetrial.models.shapes import Quantization
from finetrial.plan.bases import ResolvedBase, resolve_base
from finetrial.plan.build import Resolved
from finetrial.plan.specs import attention
from finetrial.records.results import Routing
from finetrial.run.artifacts import phases_in, seed_folder
from finetrial.run.loading import ADAPTER, FULL_MODEL, code, complete, places, rate_of, source_of
from finetrial.run.run_file import ARTIFACTS, RUN_FILE, STUDY_FILE, read_how
from finetrial.spec.io import read_study
from finetrial.spec.study import BASE_ARM, Study

if TYPE_CHECKING:
    from finetrial.stages.adapted import Adapted
    from finetrial.stages.switching import TaskSwitch

LARGEST = "Largest difference of a logit between"
PROBE_TEXT = "def add(a, b):\n    return a + b\n"


@dataclass(frozen=True)
class Trained:
    """Where the weights of one arm and seed lie, after its last phase unless another was asked for."""

    study: Study
    base: ResolvedBase
    arm: str
    sequence: str
    seed: int
    phase: int
    folder: Path  # `phase_folder` of these: state.json and a folder an instance

    @property
    def quantization(self) -> Quantization | None:
        """How the base was held while it was trained."""
        return self.study.arm(self.arm).quantization


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and how far the logits of the unmerged model are from those of the merged one; for an arm on
    a quantised base, also from those of its adapters merged into the base in full precision."""

    folder: Path
    largest_difference: float | None  # None where nothing was merged
    loading: tuple[str, ...] = ()  # Python, a line a set of weights
    to_full_precision: float | None = None
    quantization: Quantization | None = None  # how the base was held while they were trained


class NoWeights(UserError):
    """An arm has no weights there."""


def find_trained(run: Path, arm: str, *, seed: int | None = None, base: str | None = None,
                 sequence: str | None = None, phase: int | None = None) -> Trained:
    """The weights of an arm in a run's folder: unless asked for otherwise, on the first base, along the first sequence that the
    arm goes along, of the first seed, after the last phase. Raises NoWeights or UserError with what there is."""
    study, relative_to = _study_of(run)
    arms = [one.name for one in study.arms]
    if arm not in arms:
        raise UserError(unknown("arm", arm, arms))
    check_which(study, base=base, sequence=sequence)
    found = _base_of(study, relative_to, base)
    along = [path.name for path in study.paths if study.arm(arm) in study.arms_along(path)]
    path = along[0] if sequence is None else sequence
    if path not in along:
        raise NoWeights(f"{arm} does not go along {path}", f"it goes along {', '.join(along)}")
    seed = study.seeds[0] if seed is None else seed
    if seed not in study.seeds:
        raise UserError(f"unknown seed {seed} (known: {', '.join(map(str, study.seeds))})",
                        "name one of these, or none for the first")
    folder = seed_folder(run / ARTIFACTS, found.name, arm, path, seed)
    phases = phases_in(folder)
    wanted = max(phases, default=None) if phase is None else phase
    if wanted is None or wanted not in phases:
        there = sorted(str(place.relative_to(run / ARTIFACTS)) for place in (run / ARTIFACTS).glob("*/*/*/seed-*"))
        raise NoWeights(f"{folder} holds no trained weights" + ("" if phase is None else f" of phase {phase}"),
                        f"there are: {', '.join(there) or 'none yet'}")
    return Trained(study, found, arm, path, seed, wanted, phases[wanted])


def check_which(study: Study, *, base: str | None = None, sequence: str | None = None) -> None:
    """Raises UserError for a base or a sequence that the study does not have; None is the first."""
    for kind, name, known in (("base", base, study.bases), ("sequence", sequence, study.paths)):
        names = [one.name for one in known]
        if name is not None and name not in names:
            raise UserError(unknown(kind, name, names), "name one that the study has, or none for the first")


def check_room(run: Path, prompt: str, max_new_tokens: int, *, base: str | None = None) -> None:
    """Raises UserError for a prompt that, with so many tokens behind it, has no room in the model; loads the tokenizer only."""
    from finetrial.models.load import load_tokenizer

    found = _base_of(*_study_of(run), base)
    num_tokens, limit = len(load_tokenizer(found.folder)(prompt)["input_ids"]), found.max_positions
    if not num_tokens:
        raise UserError("the prompt is empty", "a model needs at least one token to go on from")
    if limit is not None and num_tokens + max_new_tokens > limit:
        raise UserError(f"the prompt has {num_tokens:,} tokens and up to {max_new_tokens:,} are asked for, but the model has {limit:,} "
                        "positions", f"--tokens at most {limit - num_tokens}" if num_tokens < limit else
                        f"cut the prompt to less than {limit:,} tokens")


def open_arm(run: Path, arm: str, *, routing: Routing = "latest", task: str = "", **which: Any) -> Adapted:
    """The model of an arm in memory. `arm` may be `base`, the untouched one."""
    from finetrial.models.load import load_base
    from finetrial.stages.adapted import Adapted, read_state

    if arm == BASE_ARM:
        base = _base_of(*_study_of(run), which.get("base"))
        return Adapted(load_base(base.folder, attention=attention(base, Resolved())), [])
    found = find_trained(run, arm, **which)
    if task and task not in (learned := read_state(found.folder).learned):
        raise UserError(unknown("task", task, learned), f"those that {arm} learned can be asked for")
    return _opened(found, found.quantization, routing=routing, task=task)


def _opened(found: Trained, quantization: Quantization | None, *, dequantized: bool = False, routing: Routing = "latest",
            task: str = "") -> Adapted:
    """What was trained, on the base held as `quantization` says, or with the values that it has then."""
    from finetrial.models.load import load_base
    from finetrial.stages.adapted import assembled

    how = attention(found.base, Resolved())
    base = load_base(found.base.folder, attention=how, quantization=quantization, dequantized=dequantized)
    return assembled({"attention": how, "seed": found.seed}, base, found.folder, found.folder, routing=routing, task=task)


def open_tasks(run: Path, arm: str, **which: Any) -> TaskSwitch:
    """What an arm trained for every task, side by side on one base in memory, to switch between them."""
    from finetrial.models.load import load_base
    from finetrial.stages.switching import TaskSwitch

    found = find_trained(run, arm, **which)
    base = load_base(found.base.folder, attention=attention(found.base, Resolved()), quantization=found.quantization)
    return TaskSwitch.open(base, found.folder)


def export(run: Path, arm: str, output: Path, *, merged: bool, command: str, **which: Any) -> Exported:
    """Write an arm's weights for plain transformers and peft.

    Merged: one model folder with tokenizer and card; the logits of the merged model are compared with those of the
    unmerged one and the difference is returned and written. What was trained on a quantised base is merged into the
    values that this base has, in fp32. Otherwise the instances' folders as they were trained, whole models with their
    tokenizer, an adapter with the name of its base. Raises UserError for an `output` that is there, unless it is an empty folder.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file", "name a folder that does not exist yet")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty", "name a folder that does not exist yet")
    found = find_trained(run, arm, **which)
    if not merged:
        shutil.copytree(found.folder, output, copy_function=shutil.copyfile, dirs_exist_ok=True)  # its files are the store's
        complete(output, found.base, _source(found))
        exported = Exported(output, None, loading=_loading(found, output, str(output)), quantization=found.quantization)
        _write_card(run, found, exported, command)
        return exported
    adapted = open_arm(run, arm, **which)
    before, other = _logits(adapted), None
    if found.quantization is not None:
        other = float((_logits(_merged(_opened(found, None))) - before).abs().max())
        adapted = _opened(found, found.quantization, dequantized=True)
    difference = float((_logits(_merged(adapted)) - before).abs().max())
    adapted.base.model.save_pretrained(output)
    adapted.base.tokenizer.save_pretrained(output)
    exported = Exported(output, difference, _loading(found, output, str(output)), other, found.quantization)
    _write_card(run, found, exported, command)
    return exported


def _source(found: Trained) -> str:
    return source_of(found.base, next(base for base in found.study.bases if base.name == found.base.name))


def _loading(found: Trained, folder: Path, shown: str) -> tuple[str, ...]:
    """How each set of weights in an export is loaded, its folder written as `shown`; where an adapter needs more than the plain
    base, that is called `base`."""
    there = places(folder)
    plain = found.quantization is None and len(there) == 1
    lines = []
    for place in there:
        name = "/".join((shown, *place.folder.relative_to(folder).parts))
        line = code(place, found.base, source=_source(found), shown=name)
        if place.kind == ADAPTER:
            line = line if plain else f'PeftModel.from_pretrained(base, "{name}")'
            lines += [line, f'AutoTokenizer.from_pretrained("{_source(found)}")']
        elif place.kind == FULL_MODEL:
            lines += [line, f'AutoTokenizer.from_pretrained("{name}")']
    return tuple(dict.fromkeys(lines))


def loading_of(quantization: Quantization) -> str:
    """The configuration, as Python, with which plain transformers loads a base as it was held."""
    return (f'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="{quantization}", '
            "bnb_4bit_use_double_quant=True)")


def _merged(adapted: Adapted) -> Adapted:
    """The same, with every instance folded into its base."""
    assert adapted.active is not None
    for component in adapted.active.values():
        component.merge()
    return adapted


def ask(run: Path, arm: str, prompt: str, max_new_tokens: int, *, num_beams: int = 1, no_repeat_ngram_size: int = 0,
        **which: Any) -> str:
    """What an arm (or `base`) writes after the prompt, the most likely token each time unless there are several beams, up to
    an end token or, where the tokenizer has a chat template, to the end of a reply. `which`: as `find_trained` takes it."""
    from finetrial.generate import Beams, Constraints, decode
    from finetrial.tasks.chat import reply_ends
    from finetrial.tasks.space_mark import written

    base, adapted = _base_of(*_study_of(run), which.get("base")), open_arm(run, arm, **which)
    tokenizer = adapted.base.tokenizer
    ids = tokenizer(prompt)["input_ids"]
    [answer] = decode(adapted.base.model, tokenizer, [ids], max_new_tokens=max_new_tokens,
                      end_tokens=[*base.end_tokens, *reply_ends(tokenizer)], beams=Beams(num_beams),
                      constraints=Constraints(no_repeat_ngram_size))
    return written(tokenizer, ids, answer.without_end, form=base.form)


def _base_of(study: Study, relative_to: Path | None, name: str | None) -> ResolvedBase:
    """A base by its name, or the first. Raises UserError for one that the study does not have."""
    check_which(study, base=name)
    bases = {one.name: one for one in study.bases}
    return resolve_base(bases[name] if name is not None else study.bases[0], relative_to)


def _study_of(run: Path) -> tuple[Study, Path | None]:
    for name in (STUDY_FILE, RUN_FILE):
        if not (run / name).is_file():
            raise UserError(f"{run} is not a run: it has no {name}", "finetrial status lists the runs")
    relative_to = read_how(run).relative_to
    return read_study(run / STUDY_FILE, relative_to), relative_to


def _logits(adapted: Adapted) -> Any:
    """Logits on a short text, in fp32."""
    import torch

    model, ids = adapted.base.model, adapted.base.tokenizer(PROBE_TEXT, return_tensors="pt")["input_ids"]
    model.eval()
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **more).logits.clone()


def _write_card(run: Path, found: Trained, exported: Exported, command: str) -> None:
    merged, held = exported.largest_difference is not None, found.quantization
    how = "Merged into one model" if merged else "Weights as they were trained, a folder an instance"
    lines = [f"# {found.arm} on {found.base.name}", "",
             f"{how}; from the finetrial study `{found.study.name}`, seed {found.seed}, {found.folder.name}.", "",
             f"Question of the study: {found.study.question}", "",
             f"Base: {found.base.provenance or found.base.folder}", ""]
    rate = rate_of(run, base=found.base.name, arm=found.arm, sequence=found.sequence, phase=found.phase,
                   seed=found.seed)
    lines += [f"Learning rate: {numbers.rate(rate)}, which validation chose.", ""] if rate is not None else []
    code_lines = _loading(found, exported.folder, "DIR")
    lines += (["Load it, DIR being this folder:", "", *(f"    {line}" for line in code_lines), ""] if code_lines else
              ["What is here is a part of a model, which plain transformers loads in one piece: export it with --merge.", ""])
    if held is not None:
        lines += [f"Trained on the base with its matrices in 4 bits ({held})"
                  + ("; the weights here are the values that these stand for, with the adapters merged into them."
                     if merged else f": load the base the same way, with quantization_config={loading_of(held)}."), ""]
    if merged:
        lines += [f"{LARGEST} merged and unmerged, on a short text in fp32: {exported.largest_difference:.2g}.", ""]
    if exported.to_full_precision is not None:
        far = f"{exported.to_full_precision:.2g}"
        lines += [f"{LARGEST} it unmerged and with its adapters merged into the base in full precision: {far}.", ""]
    lines += ["Made with:", "", f"    {command}", ""]
    (exported.folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
