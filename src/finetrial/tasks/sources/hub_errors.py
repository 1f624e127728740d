"""What goes wrong at the hub, told to a person: the repository, what happened, and the way out of it."""

from __future__ import annotations

from finetrial.errors import DataError

OWN_FILES = {"dataset": "or give the data as your own file (path: file.jsonl)",
             "model": "or give the model's folder (source: ./folder)"}
MAX_REASON_CHARACTERS = 200


def own_files(kind: str) -> str:
    """The way without the hub."""
    return OWN_FILES[kind]


def told(error: Exception, kind: str, repository: str, revision: str, name: str = "") -> DataError:
    """The DataError for an exception of huggingface_hub or its HTTP client; programming errors are raised again."""
    from huggingface_hub import constants, errors

    what = f"{kind} {repository}" + (f", file {name}" if name else "")
    cause = _cause(error)
    if isinstance(cause, errors.HFValidationError):
        return DataError(f"{repository!r} is no name of a repository", "write it as owner/name")
    if isinstance(cause, errors.GatedRepoError):
        place = "datasets/" if kind == "dataset" else ""
        return DataError(f"{what} is gated: its owner asks for conditions to be accepted first",
                         f"accept them at {constants.ENDPOINT}/{place}{repository}, then log in: hf auth login")
    if isinstance(cause, errors.RepositoryNotFoundError):
        return DataError(f"{what} is not on the hub, or it is private and you are not logged in",
                         f"check the name; for a private one log in: hf auth login; {own_files(kind)}")
    if isinstance(cause, errors.RevisionNotFoundError):
        return DataError(f"{what} has no revision {revision!r}", "name a branch, a tag, or a commit of 40 digits")
    if isinstance(cause, errors.OfflineModeIsEnabled) or constants.is_offline_mode():
        why = "is not in the cache" if name else "was not fetched by finetrial"
        return DataError(f"{what} at revision {revision!r} {why}, and HF_HUB_OFFLINE=1 forbids to fetch it",
                         "run `finetrial fetch STUDY` once without HF_HUB_OFFLINE: it takes what other programs have put into the "
                         f"hub's cache, and records commit and digests, {own_files(kind)}")
    if isinstance(cause, errors.RemoteEntryNotFoundError):
        return DataError(f"{what} is listed but not there", "try again later, or name another revision")
    if isinstance(cause, errors.HfHubHTTPError):
        return _answered(cause, what, kind)
    if isinstance(cause, OSError) or type(cause).__module__.partition(".")[0].startswith("http"):
        return DataError(f"{what}: the download failed: {_reason(cause)}",
                         f"check the connection and the space on the disk, and run it again; {own_files(kind)}")
    raise error


def _answered(error: Exception, what: str, kind: str) -> DataError:
    response = error.response  # type: ignore[attr-defined]
    status = response.status_code
    if status == 429:
        seconds = response.headers.get("Retry-After")
        wait = f"wait {seconds} seconds" if seconds else "wait some minutes"
        return DataError(f"{what}: the hub answers 429, too many requests", f"{wait} and run it again; logging in "
                         "raises the limit: hf auth login")
    if status in (401, 403):
        return DataError(f"{what}: the hub answers {status}, access denied", "log in: hf auth login; the token needs "
                         "the right to read this repository")
    return DataError(f"{what}: the hub answers {status}", f"try again later, {own_files(kind)}")


def _cause(error: Exception) -> Exception:
    """huggingface_hub hides an answer of the hub behind "not in the cache"; the answer is the cause."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:MAX_REASON_CHARACTERS]
