"""Where a base lies, what identifies it, and what its configuration says; read without torch.

A base is bundled, a folder, or a repository of the hub, fetched once: the commit that its revision stood for then is
recorded and kept (`tasks/sources/hub.py`). Before that, a repository whose configuration ships with finetrial can be
planned: its digests are of repository and revision, and provisional.

A base is identified by the digest of its weights and configuration, its tokenizer by a digest of its own, so that two
bases with one tokenizer share their encoded data. Digests of large files are remembered by path, size and time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrial.cache import cache_root
from finetrial.errors import DataError, ModelError, unknown
from finetrial.fingerprint import key_of
from finetrial.models import shapes
from finetrial.models.check import check_model, weight_files
from finetrial.models.files import MODEL_FILES, TOKENIZER_FILES, digest_of, matching
from finetrial.plan.hub_configs import known_config
from finetrial.spec.uses import Base

if TYPE_CHECKING:
    from finetrial.tasks.assemble import Form
    from finetrial.tasks.sources.hub import Say, Snapshot

BUNDLED = Path(__file__).parent.parent / "models" / "bundled"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class ResolvedBase:
    """A base that was found: its folder, its digests, its config.json."""

    name: str
    folder: Path
    weights_digest: str
    tokenizer_digest: str
    config: Mapping[str, Any]
    provenance: str = ""  # of one that was fetched: repository and commit
    provisional: bool = False  # not fetched yet: the digests are of repository and revision

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the model has positions for; None if the architecture sets no limit."""
        return shapes.max_positions(self.config)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads what a decoder answers."""
        return bool(self.config.get("is_encoder_decoder"))

    @property
    def form(self) -> Form:
        """Whether source and target are apart in its rows."""
        return "encoder-decoder" if self.is_encoder_decoder else "decoder"

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens with which the base ends what it writes, as generation_config.json has them; none where that is
        missing or was only copied from config.json. Raises ModelError for one that cannot be read."""
        path = self.folder / "generation_config.json"
        if not path.is_file():
            return ()
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            ends = written.get("eos_token_id")
            found = tuple(sorted({int(token) for token in (ends if isinstance(ends, list) else [ends]) if token is not None}))
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read: {error}", "eos_token_id is a token's number, or a list of them") from error
        copied = written.get("_from_model_config") and ends == self.config.get("eos_token_id")
        return () if copied else found

    @property
    def chat_template(self) -> str | None:
        """The template of its tokenizer for conversations; None if it has none."""
        own, config = self.folder / "chat_template.jinja", self.folder / "tokenizer_config.json"
        if own.is_file():
            return own.read_text(encoding="utf-8")
        try:
            written = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
        except (ValueError, AttributeError) as error:
            raise ModelError(f"{config} cannot be read: {error}", "copy or save the tokenizer again") from error
        if isinstance(written, list):  # several, by name
            written = next((one["template"] for one in written if one.get("name") == "default"), None)
        return written or None


def bundled_names() -> list[str]:
    """The bundled bases, sorted."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def resolve_base(base: Base, relative_to: Path | None = None, *, say: Say | None = None,
                 fetch: bool = True) -> ResolvedBase:
    """Find a base and digest it. A relative `source` is looked up from `relative_to` (the study file's folder) first;
    one that is no folder here, and written as owner/name, is fetched from the hub (`say` is told of downloads). Without
    `fetch`, one that is not here yet, or no more, is provisional, if its configuration ships with finetrial.

    Raises ModelError for an unknown bundled name, a missing folder, or a folder that is no model that can be loaded, as far as
    its files' headers tell (`models/check.py`); DataError where the hub cannot give it.
    """
    snapshot = None
    folder = _folder(base, relative_to)
    if folder is None:
        if not fetch and (unfetched := _unfetched(base)) is not None:
            return unfetched
        snapshot = _fetched(base, say)
        folder = snapshot.files["config.json"].parent
    config = _read_config(folder)
    found = list(snapshot.files.values()) if snapshot else sorted(path for path in folder.iterdir() if path.is_file())
    weights, tokenizer = matching(found, MODEL_FILES), matching(found, TOKENIZER_FILES)
    weight_files(folder)
    if not tokenizer:
        raise ModelError(f"{snapshot.provenance if snapshot else folder} has no tokenizer (looked for "
                         f"{', '.join(TOKENIZER_FILES[:2])}, ...)",
                         "save the tokenizer beside the model: tokenizer.save_pretrained(folder)")
    _refuse_pointers(weights)
    check_model(folder, config)
    return ResolvedBase(base.name, folder, digest_of(weights), digest_of(tokenizer), config,
                        snapshot.provenance if snapshot else "")


def is_of_the_hub(base: Base, relative_to: Path | None = None) -> bool:
    """Whether a base is fetched rather than found on this machine. Raises what `resolve_base` raises."""
    return _folder(base, relative_to) is None


def _folder(base: Base, relative_to: Path | None) -> Path | None:
    """Where a base lies on this machine; None for one of the hub."""
    if not base.source:
        folder = BUNDLED / base.name
        if not (folder / "config.json").is_file():
            raise ModelError(unknown("bundled base", base.name, bundled_names()),
                             "for a model of your own give its folder: bases: [{name: mine, source: ./folder}]; for one "
                             "of the hub its repository: source: owner/name")
        _refuse_revision(base, folder)
        return folder
    written = Path(base.source).expanduser()
    places = [written] if written.is_absolute() or relative_to is None else [relative_to / written, written]
    there = next((place for place in places if place.is_dir()), None)
    if there is not None and base.revision is None:
        return there.resolve()
    if not REPOSITORY.fullmatch(base.source):
        if there is not None:
            _refuse_revision(base, there)
        raise ModelError(f"base {base.name!r}: no folder at {' or '.join(str(place) for place in places)}",
                         "source is a local folder with config.json, *.safetensors and a tokenizer, or a repository of "
                         "the hub: owner/name")
    return None


def _refuse_revision(base: Base, folder: Path) -> None:
    if base.revision is not None:
        raise ModelError(f"base {base.name!r}: {folder} is a folder of this machine, which has no revision {base.revision!r}",
                         "leave out the revision, or name a repository of the hub: source: owner/name")


def _unfetched(base: Base) -> ResolvedBase | None:
    """A repository by its name alone; None if it was fetched and is still here, or its configuration does not ship."""
    from finetrial.tasks.sources.hub import is_here

    revision, config = base.revision or "main", known_config(base.source)
    if config is None or is_here(base.source, revision, "model"):
        return None
    digest = key_of(["hub", base.source, f"revision {revision}"])
    return ResolvedBase(base.name, cache_root() / "not-fetched" / base.source, digest, digest, config,
                        f"{base.source} ({revision}, not fetched yet)", provisional=True)


def _fetched(base: Base, say: Say | None) -> Snapshot:
    """Configuration, weights and tokenizer of a repository of the hub."""
    from finetrial.tasks.sources.hub import fetch

    try:
        return fetch(base.source, base.revision or "main", ("config.json", "model*.safetensors"), "model",
                     optional=("model.safetensors.index.json", "generation_config.json", *TOKENIZER_FILES), say=say)
    except DataError as error:
        here = f"there is no folder {base.source} here, and " if base.revision is None else ""
        raise ModelError(f"base {base.name!r}: {here}{error.problem}", error.mend) from error


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no config.json", "a model folder holds config.json, weights, tokenizer") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "check the file; it must be JSON") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds a {type(config).__name__}, not an object", "it must be a model's configuration")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path} has no model_type", "copy the configuration that belongs to the weights")
    if stored := config.get("quantization_config"):
        method = stored.get("quant_method", "some method") if isinstance(stored, dict) else stored
        raise ModelError(f"the weights in {folder} are stored quantised ({method})",
                         "give the model in full precision; an arm with `quantization: nf4` holds it in 4 bits")
    return config


def _refuse_pointers(weights: Iterable[Path]) -> None:
    """Raise ModelError for a file that says where the weights are instead of holding them."""
    for path in weights:
        with path.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(f"{path} is a pointer of git-lfs, not the weights", "fetch them: git lfs pull")
