"""The catalog: every plug-in by kind and registered name, found by its file.

A plug-in is one file that defines one public class (a subclass of its kind's base). The file name is the registered
name, with `_` for `-`: `pydoc_chat.py` is the task `pydoc-chat`. Files come from the package, from folders or files a
study names (`plugins: [./my_method.py]`), and from installed packages' entry points (group `finetrial.<kind>`).
An import error in a plug-in is shown, never hidden. A user's file takes no name that finetrial has, and the digest of its
code is part of the keys of what it computes (`code_of`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any

from finetrial.errors import UserError, mistake_in, unknown


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in: where its files lie and the class they subclass."""

    name: str  # in messages: "task"
    package: str  # "finetrial.tasks"
    base_module: str
    base_class: str


KINDS = {kind.name: kind for kind in (
    Kind("task", "finetrial.tasks", "finetrial.tasks.base", "Task"),
    Kind("method", "finetrial.methods", "finetrial.methods.base", "Method"),
    Kind("scorer", "finetrial.scorers", "finetrial.scorers.base", "Scorer"),
    Kind("measure", "finetrial.measures", "finetrial.measures.base", "Measure"),
    Kind("stage", "finetrial.stages", "finetrial.stages.base", "StageKind"),
    Kind("rule", "finetrial.plan.audit", "finetrial.plan.audit.base", "Rule"),
    Kind("study", "finetrial.studies", "finetrial.studies.base", "BuiltIn"),
)}

CODE_DIGEST, PACKAGES = "code_digest", "packages"
CODE = ("version", CODE_DIGEST, PACKAGES)  # what a stage's spec holds of a plug-in beside its options


@dataclass(frozen=True)
class UserFile:
    """A user's plug-in file, as it was when it was registered."""

    path: Path
    digest: str


_user_files: dict[str, dict[str, UserFile]] = {name: {} for name in KINDS}
_digests: dict[str, str] = {}  # of users' code, by the name of its module


def registered_name(stem: str) -> str:
    """`pydoc_chat` -> `pydoc-chat`."""
    return stem.replace("_", "-")


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted. Imports nothing but the kind's package."""
    return sorted({*_package_modules(kind), *_user_files[kind], *_entry_points(kind)})


def find(kind: str, name: str) -> type:
    """The class registered as `name`. Raises UserError with the nearest names if there is none."""
    wanted = registered_name(name)
    if wanted in _user_files[kind]:
        return _class_in(_import_file(_user_files[kind][wanted]), kind)
    if wanted in _package_modules(kind):
        return _class_in(importlib.import_module(_package_modules(kind)[wanted]), kind)
    if wanted in _entry_points(kind):
        return _class_in(importlib.import_module(_entry_points(kind)[wanted]), kind)
    raise UserError(unknown(kind, name, names(kind)), code="unknown-name")


def name_of(plugin: type) -> str:
    """The registered name of a plug-in class: its file's name."""
    return registered_name(plugin.__module__.rpartition(".")[2])


def code_of(plugin: type) -> dict[str, Any]:
    """What tells the code of a plug-in class in a stage's spec: its version, the digest of a user's file, and the versions
    of the packages that the class names in `packages`, because they compute for it ("" where one is missing)."""
    code = {"version": plugin.version, CODE_DIGEST: code_digest(plugin),  # type: ignore[attr-defined]
            PACKAGES: {name: installed_version(name) for name in getattr(plugin, "packages", ())}}
    return {name: value for name, value in code.items() if value}


@functools.cache
def installed_version(package: str) -> str:
    """The version of an installed package, by its metadata; empty if there is none. Of `python` the minor one."""
    if package == "python":
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def code_digest(plugin: type) -> str:
    """SHA-256 of the user's file that defines a plug-in class; empty for one of a package."""
    return _digests.get(plugin.__module__, "")


def add_files(paths: Iterable[Path]) -> None:
    """Register the plug-in files of one study. Raises what `add_file` raises, and UserError for two files of one name."""
    found: dict[tuple[str, str], Path] = {}
    for path in paths:
        kind, name, _ = add_file(path)
        before = found.setdefault((kind, name), path)
        if before.resolve() != path.resolve():
            raise UserError(f"plug-ins {before} and {path} are both the {kind} {name!r}",
                            "rename one: the file's name is the plug-in's")


def add_file(path: Path) -> tuple[str, str, str]:
    """Register a user's plug-in file; its kind is read from the class it defines. Returns (kind, name, digest).

    Raises UserError where there is no such file, or none that can be imported, one without a plug-in, or one of a name that
    a package has.
    """
    if not path.is_file():
        raise UserError(f"plug-in {path} does not exist", "name a Python file, relative to the study file")
    file = UserFile(path.resolve(), hashlib.sha256(path.read_bytes()).hexdigest())
    try:
        module = _import_file(file)
    except UserError:
        raise
    except Exception as error:
        raise mistake_in(path, error, "mend the file, or install what it imports") from error
    for kind in KINDS:
        if _classes_in(module, kind):
            name = registered_name(path.stem)
            if name in _package_modules(kind) or name in _entry_points(kind):
                raise UserError(f"plug-in {path} would take the place of the {kind} {name!r} that is there already",
                                "rename the file: its name is the plug-in's")
            _user_files[kind][name] = file
            return kind, name, file.digest
    expected = ", ".join(spec.base_class for spec in KINDS.values())
    raise UserError(f"plug-in {path} defines no plug-in class", f"subclass one of {expected}")


@functools.cache
def _package_modules(kind: str) -> dict[str, str]:
    spec = KINDS[kind]
    package = importlib.import_module(spec.package)
    base = spec.base_module.rpartition(".")[2]
    skipped = {base, *getattr(package, "NOT_PLUGINS", ())}
    found = (module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg)
    return {registered_name(stem): f"{spec.package}.{stem}" for stem in found if stem not in skipped}


@functools.cache
def _entry_points(kind: str) -> dict[str, str]:
    return {registered_name(point.name): point.value for point in entry_points(group=f"finetrial.{kind}")}


@functools.cache
def _import_file(file: UserFile) -> ModuleType:
    source = file.path.read_bytes()
    if hashlib.sha256(source).hexdigest() != file.digest:
        raise UserError(f"plug-in {file.path} changes while it is read", "run again")
    name = f"finetrial_user.{file.digest[:12]}.{file.path.stem}"  # files of one name, and an edited one, are modules apart
    spec = importlib.util.spec_from_file_location(name, file.path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], _digests[name] = module, file.digest
    try:
        code = compile(source, str(file.path), "exec", dont_inherit=True)  # its loader may run an earlier one from a cache
        exec(code, vars(module))  # noqa: S102 (it is what a study asks for, as an import would do)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _classes_in(module: ModuleType, kind: str) -> list[type]:
    spec = KINDS[kind]
    base = getattr(importlib.import_module(spec.base_module), spec.base_class)
    return [value for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base) and value is not base
            and value.__module__ == module.__name__ and not name.startswith("_")]


@functools.cache  # a plan of a thousand cells asks tens of thousands of times
def _class_in(module: ModuleType, kind: str) -> type:
    classes = _classes_in(module, kind)
    if len(classes) != 1:
        found = ", ".join(sorted(cls.__name__ for cls in classes)) or "none"
        raise UserError(f"{module.__file__} must define exactly one {KINDS[kind].base_class}; found {found}",
                        "start the names of helper classes with an underscore")
    return classes[0]
