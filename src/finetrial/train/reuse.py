"""States of a frozen prefix, computed once for a batch and read again: by other learning rates, seeds and epochs.

What is kept is a whole micro-batch, found by the digest of its tokens and of the prefix: a row's states depend in their
last bits on the shapes it is computed in, a batch's do not. So a run with reuse gives the same bits as one without, and
nothing of this is part of an identity. Rates of one seed share the order of data, and every cell shares its validation
and test batches. Files hold the states, so that the processes of a study share them; each is checked by its digest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetrial.models import prefix as prefixes
from finetrial.train.batch import Batch

MOST_BYTES = 2 << 30
FREE_SHARE = 10  # and never more than this fraction (one in ...) of what the disk has free
RECOUNT_SHARE = 16  # other processes write too: files are counted again when this fraction of the bound was written
_LOG = logging.getLogger(__name__)


class StateFiles:
    """Tensors in files of a folder, by key; those read longest ago are removed beyond `most_bytes`.

    Processes may share a folder, and a file may vanish at any time: it is then computed again.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.most_bytes = min(most_bytes, shutil.disk_usage(_there(folder)).free // FREE_SHARE)
        self._uncounted = self.most_bytes  # bytes written since the files were counted; count at the first write

    def get(self, key: str) -> list[Tensor] | None:
        """The tensors, in memory of their own; None if they are not there or do not match their digest."""
        from safetensors.torch import load

        path = self.folder / key
        try:
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        digest, payload = content[:prefixes.DIGEST_BYTES], content[prefixes.DIGEST_BYTES:]
        if _digest(payload) != digest:
            _LOG.warning("%s does not match its digest; it is removed and computed again", path)
            path.unlink(missing_ok=True)
            return None
        found = load(payload)
        return [found[name].clone() for name in sorted(found)]  # cloned: aligned as a computed tensor is

    def put(self, key: str, tensors: Iterable[Tensor]) -> None:
        """Keep the tensors. Where there is no room for them, or the folder was removed, nothing is kept."""
        from safetensors.torch import save

        payload = save({f"{number:02d}": tensor.cpu().contiguous() for number, tensor in enumerate(tensors)})
        if not self._make_room(len(payload)):
            return
        part = self.folder / f".{key}.{os.getpid()}"
        try:
            part.write_bytes(_digest(payload) + payload)
            part.rename(self.folder / key)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
                raise
            _LOG.warning("states of frozen blocks are not kept: %s", error)

    def _make_room(self, num_bytes: int) -> bool:
        """Remove what was read longest ago if there is too much; False for a file too large for the bound to be kept."""
        if num_bytes > self.most_bytes // RECOUNT_SHARE:
            return False
        self._uncounted += num_bytes
        if self._uncounted > self.most_bytes // RECOUNT_SHARE:
            self._uncounted = num_bytes
            files = sorted(_stats(self.folder))
            excess = sum(size for _, size, _ in files) + self.most_bytes // RECOUNT_SHARE - self.most_bytes
            for _, size, path in files:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size
        return True


def _there(folder: Path) -> Path:
    """The folder, or above it the first that exists: another run may have removed it."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


class Reuse:
    """The states of one model's frozen prefix: `with reuse(batch):` around a forward pass of that batch.

    The prefix's weights are digested when this is made, and must not change while it is used. `counts` says for how many
    batches its blocks were computed, and for how many the states were read.
    """

    def __init__(self, model: Any, prefix: prefixes.Prefix, files: StateFiles) -> None:
        self._model, self._prefix, self._files = model, prefix, files
        self._digest = prefixes.digest(model, prefix)
        self.counts = {"blocks": sum(prefix.depths), "batches_computed": 0, "batches_read": 0}

    @contextlib.contextmanager
    def __call__(self, batch: Batch) -> Iterator[None]:
        """Within, run the model on `batch` once: its frozen blocks are computed, or their states taken from a file."""
        key = self._key(batch)
        states = self._files.get(key)
        if states is not None:
            self.counts["batches_read"] += 1
            with prefixes.replay(self._model, self._prefix, states):
                yield
            return
        with prefixes.record(self._model, self._prefix) as recorded:
            yield
        self.counts["batches_computed"] += 1
        self._files.put(key, recorded)

    def _key(self, batch: Batch) -> str:
        """Prefix, precision, threads, mode, and what the model is given."""
        autocast = str(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else "off"
        total = hashlib.blake2b(f"{self._digest} {autocast} {torch.get_num_threads()} {self._model.training}\n".encode(),
                                digest_size=prefixes.DIGEST_BYTES)
        given = {"input": batch.input_ids, "position": batch.position_ids, "owner": batch.owner,
                 "source": batch.source_ids, "mask": batch.source_mask}
        prefixes.add_tensors(total, {name: tensor for name, tensor in given.items() if tensor is not None})
        return total.hexdigest()


def reuse_below(model: Any, changing: Iterable[nn.Parameter], folder: Path | None) -> Reuse | None:
    """Reuse of the states below all of `changing`, kept in `folder`; None where there is no folder, no frozen prefix, or
    the model is not on a CPU: accelerators compute a block about as fast as they read its states."""
    if folder is None or next(model.parameters()).device.type != "cpu":
        return None
    prefix = prefixes.frozen_prefix(model, changing)
    return None if prefix is None else Reuse(model, prefix, StateFiles(folder))


def within(reuse: Reuse | None, batch: Batch) -> contextlib.AbstractContextManager[None]:
    """`reuse(batch)`, or nothing."""
    return contextlib.nullcontext() if reuse is None else reuse(batch)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=prefixes.DIGEST_BYTES).digest()


def _stats(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of the last read or write, bytes, path) of every file that is still there."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path
