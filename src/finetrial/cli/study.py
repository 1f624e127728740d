"""From a name on the command line to a study: found, changed by the options, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from finetrial import catalog
from finetrial.errors import SpecError, UserError, mistake_in, unknown
from finetrial.spec.hypothesis import FLOOR
from finetrial.spec.io import parse_study, read_study, set_value, spec_error
from finetrial.spec.study import BASE_ARM, Study
from finetrial.studies.base import BuiltIn

FILE_ENDINGS = (".yaml", ".yml", ".json")
CODE_ENDING = ".py"
SCALE, SIZE = "embedded", "standard"  # of a built-in study, unless asked for another


@dataclass(frozen=True)
class Changes:
    """What the options change in a study, as they were written; None or empty = nothing."""

    scale: str | None = None
    size: str | None = None
    assignments: tuple[str, ...] = ()  # of --set
    seeds: str | None = None
    arms: str | None = None
    precision: str | None = None
    accept: tuple[str, ...] = ()
    as_published: bool = False
    base: str | None = None


@dataclass(frozen=True)
class Found:
    """A study, and the folder that paths in it are relative to (None for a built-in study)."""

    study: Study
    relative_to: Path | None = None


def find_study(name: str, changes: Changes | None = None) -> Found:
    """The study that `name` stands for, with the changes made. Raises UserError with all problems found."""
    changes = changes or Changes()
    if name.endswith(CODE_ENDING):
        found = _from_code(Path(name), changes)
    else:
        found = _from_file(Path(name), changes) if is_file_name(name) else Found(_built_in(name, changes))
    content = found.study.identity()
    if not _apply(content, changes):
        return found
    return Found(parse_study(content, f"{name} with the options given"), found.relative_to)


def is_file_name(name: str) -> bool:
    """Whether a name is meant as the path of a study file."""
    return name.endswith((*FILE_ENDINGS, CODE_ENDING)) or "/" in name or Path(name).is_file()


def built_in_studies() -> Mapping[str, type[BuiltIn]]:
    """The built-in studies by name."""
    return {name: catalog.find("study", name) for name in catalog.names("study")}


def _built_in(name: str, changes: Changes) -> Study:
    try:
        found: type[BuiltIn] = catalog.find("study", name)
    except UserError as error:
        raise UserError(error.problem, "finetrial studies lists them; a study of your own is a .yaml file, or a .py file with "
                        "a class", code=error.code) from None
    return _made(found(), changes)


def _made(study: BuiltIn, changes: Changes) -> Study:
    """At the scale and size asked for, or the usual ones, or the first that it has."""
    scale = changes.scale or _usual(SCALE, study.sizes)
    if not changes.as_published:
        return study.study(scale, changes.size or _usual(SIZE, study.sizes.get(scale, ())))
    if changes.size is not None:
        raise UserError(f"--size {changes.size} does not go with --as-published, which has one size", "leave --size out")
    return study.as_published(scale)


def _usual(name: str, known: Iterable[str]) -> str:
    return name if name in known else next(iter(known), name)


def _from_code(path: Path, changes: Changes) -> Found:
    """A study that a class in a file of one's own makes, with the plug-ins that it names. What goes wrong in the file is told
    as a mistake in it."""
    if not path.is_file():
        raise UserError(f"study file {path} does not exist", "write one (docs/extending.md), or run a built-in study: "
                        "finetrial studies")
    try:
        kind, name, _ = catalog.add_file(path)
        if kind != "study":
            raise UserError(f"{path} defines a {kind}, not a study",
                            "name it in a study's `plugins`; a study subclasses BuiltIn")
        found: type[BuiltIn] = catalog.find("study", name)
        _add_plugins(found.plugins, path.parent)
        study = _made(found(), changes)
        _add_plugins(study.plugins, path.parent)
    except SpecError as error:
        raise SpecError(str(path), error.problems) from None
    except UserError:
        raise
    except ValidationError as error:
        raise spec_error(str(path), error) from error
    except Exception as error:
        raise mistake_in(path, error, "mend the file; it makes the study") from error
    return Found(study, path.resolve().parent)


def _add_plugins(names: Iterable[str], folder: Path) -> None:
    catalog.add_files(folder / name for name in names)


def _from_file(path: Path, changes: Changes) -> Found:
    if changes.as_published:
        raise UserError(f"--as-published does not go with the study file {path}",
                        "finetrial studies lists the built-in studies, which have published designs")
    for option, value in (("--size", changes.size), ("--scale", changes.scale)):
        if value is not None:
            raise UserError(f"{option} {value} does not go with the study file {path}",
                            "sizes and scales belong to built-in studies; use --set, --seeds, --arms, or edit the file")
    return Found(read_study(path), path.resolve().parent)


def _apply(content: dict[str, Any], changes: Changes) -> bool:
    """Change a study's plain data; False if there was nothing to change."""
    if changes.base is not None:
        _put_in(changes.base, content)
    if changes.arms is not None:
        _keep_arms(content, _listed("--arms", changes.arms))
    for assignment in changes.assignments:
        _set(content, assignment)
    if changes.seeds is not None:
        content["seeds"] = _seeds(changes.seeds)
    if changes.precision is not None:
        arms = content["arms"] if isinstance(content["arms"], list) else []  # anything else is told as a mistake later
        for owner in (content, *(arm for arm in arms if isinstance(arm, dict))):
            if isinstance(owner.get("training"), dict):
                owner["training"] = {**owner["training"], "precision": changes.precision}
    if changes.accept and isinstance(accepted := content.get("accept_threats", []), list):
        content["accept_threats"] = list(dict.fromkeys([*accepted, *changes.accept]))
    return any((changes.base, changes.arms, changes.assignments, changes.seeds, changes.precision, changes.accept))


def _put_in(model: str, content: dict[str, Any]) -> None:
    """Another base in place of the study's only one; the study's name says so. Notes about the old one are left out."""
    from finetrial.compare.compare import find_base

    if len(content["bases"]) != 1:
        raise UserError(f"--base {model}: the study has {len(content['bases'])} bases", "write --set bases=[NAME, ...], or edit it")
    old = content["bases"][0]["name"]
    source, _, revision = (model, "", "") if Path(model).expanduser().is_dir() else model.partition("@")
    new = find_base(source, revision or None, "--base")
    content["bases"] = [new.model_dump(mode="json", exclude_defaults=True)]
    content["name"] = f"{content['name']}-{new.name}".lower()
    content["notes"] = [note for note in content.get("notes", ()) if old not in note]
    for arm in content["arms"]:
        (arm.get("match") or {}).pop("solved", None)
    for contrast in _stated([*content.get("hypotheses", ()), *content.get("claims", ())]):
        for side in ("base", "left_base", "right_base"):
            if contrast.get(side) == old:
                contrast[side] = new.name


def _set(content: dict[str, Any], assignment: str) -> None:
    try:
        set_value(content, assignment)
    except yaml.YAMLError as error:
        raise UserError(f"--set {assignment}: the value is not YAML: {' '.join(str(error).split())}",
                        "quote it for YAML and for the shell: --set \"question='what: this?'\"") from error


def _seeds(text: str) -> int | list[int]:
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not numbers or not all(number.isdecimal() for number in numbers):
        raise UserError(f"--seeds {text!r} is neither a number nor a list of numbers",
                        "write --seeds 5 for the seeds 0 to 4, or --seeds 0,1,7")
    if len(numbers) == 1 and "," not in text:
        if int(numbers[0]) == 0:
            raise UserError("--seeds 0 asks for no seed at all", "at least 3 seeds are needed for an interval")
        return int(numbers[0])
    return [int(number) for number in numbers]


def _listed(option: str, text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UserError(f"{option} {text!r} names nothing", f"for example: {option} full,lora-r8")
    return names


def _keep_arms(content: dict[str, Any], wanted: list[str]) -> None:
    """Keep only these arms. Hypotheses about the others are not asked, and the study's notes say so."""
    arms = [arm["name"] for arm in content["arms"]]
    for name in wanted:
        if name not in arms:
            raise UserError("--arms: " + unknown("arm", name, arms))
    controls = content.get("controls") or {}
    for needed in (controls.get("reference"), (controls.get("positive") or {}).get("arm")):
        if needed is not None and needed not in wanted:
            raise UserError(f"--arms leaves out {needed!r}, from which the study makes its controls",
                            f"add it: --arms {','.join([needed, *wanted])}")
    content["arms"] = [arm for arm in content["arms"] if arm["name"] in wanted]
    for arm in content["arms"]:
        if (matched := (arm.get("match") or {}).get("arm")) is not None and matched not in wanted:
            raise UserError(f"--arms leaves out {matched!r}, to which {arm['name']} is matched",
                            f"add it: --arms {','.join([matched, *wanted])}")
    asked = [hypothesis for hypothesis in content.get("hypotheses", ()) if _arms_of(hypothesis) <= {*wanted, BASE_ARM}]
    content["claims"] = [claim for claim in content.get("claims", ()) if _arms_of(claim) <= {*wanted, BASE_ARM}]
    dropped = [hypothesis["name"] for hypothesis in content.get("hypotheses", ()) if hypothesis not in asked]
    content["hypotheses"] = asked
    if dropped:
        asked_not = f"{', '.join(dropped)} {'is' if len(dropped) == 1 else 'are'} not asked"
        content["notes"] = [*content.get("notes", ()), f"run with the arms {', '.join(wanted)} only: {asked_not}"]


def _arms_of(stated: Mapping[str, Any]) -> set[str]:
    """The arms that a hypothesis or a claim compares, floors left out."""
    compared: set[str] = set()
    for contrast in _stated([stated]):
        compared |= {str(contrast.get(side)) for side in ("left", "right")} | set(contrast.get("interaction") or ())
    return {arm for arm in compared if not arm.startswith(FLOOR)}


def _stated(hypotheses: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every contrast that these hypotheses or claims are made of."""
    for stated in hypotheses:
        yield from _contrasts([stated.get(form) for form in ("contrast", "as_published", "mended", "all_of", "any_of")])


def _contrasts(stated: Any) -> Iterator[dict[str, Any]]:
    """One by one, out of lists of lists: a member of `any_of` may be several."""
    if isinstance(stated, dict):
        yield stated
    elif isinstance(stated, (list, tuple)):
        for part in stated:
            yield from _contrasts(part)
