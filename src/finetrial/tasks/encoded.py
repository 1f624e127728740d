"""`TokenDataset`: the encoded rows of one split, as flat arrays that a file holds byte for byte the same."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetrial.errors import DataError


@dataclass(frozen=True)
class TokenDataset:
    """Rows of token ids. Row i is `ids[offsets[i]:offsets[i + 1]]`.

    `ids` int32 [total]; `loss_mask` bool [total]: this token is predicted (from those before it) and scored; `offsets`
    int64 [n + 1]; `num_bytes` int64 [n]: UTF-8 bytes of the scored text; `items` and `clusters`: n names each.
    For encoder-decoder models `source_ids` [source total] and `source_offsets` [n + 1] hold the encoder's input.
    """

    ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    items: list[str]
    clusters: list[str]
    source_ids: NDArray[np.int32] | None = None
    source_offsets: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        num_rows = len(self.offsets) - 1
        assert self.offsets[0] == 0 and self.offsets[-1] == len(self.ids) == len(self.loss_mask)
        assert len(self.num_bytes) == len(self.items) == len(self.clusters) == num_rows
        assert (self.source_ids is None) == (self.source_offsets is None)

    def __len__(self) -> int:
        return len(self.items)

    def row(self, index: int) -> list[int]:
        """The ids of one row."""
        return [int(token) for token in self.ids[self.offsets[index]:self.offsets[index + 1]]]

    def source(self, index: int) -> list[int]:
        """What the encoder reads of one row; nothing where there is no encoder."""
        if self.source_ids is None or self.source_offsets is None:
            return []
        return [int(token) for token in self.source_ids[self.source_offsets[index]:self.source_offsets[index + 1]]]

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> TokenDataset:
        """The rows at `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        source_ids, source_offsets = None, None
        if self.source_ids is not None and self.source_offsets is not None:
            taken, source_offsets = _rows_at(self.source_offsets, rows)
            source_ids = self.source_ids[taken]
        taken, offsets = _rows_at(self.offsets, rows)
        return TokenDataset(self.ids[taken], self.loss_mask[taken], offsets, self.num_bytes[rows],
                            [self.items[row] for row in rows], [self.clusters[row] for row in rows],
                            source_ids, source_offsets)

    def digest(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all arrays."""
        digest = hashlib.sha256()
        for name, array in self._arrays().items():
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write one uncompressed .npz; equal datasets give equal bytes."""
        with path.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **self._arrays())

    @classmethod
    def load(cls, path: Path) -> TokenDataset:
        """Read what `save` wrote. Raises DataError for a missing or damaged file."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            names = {name: arrays.pop(name).tolist() for name in ("items", "clusters")}
            return cls(**arrays, **names)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not an encoded dataset: {error}", "remove it; it is made again") from error

    def _arrays(self) -> dict[str, NDArray[Any]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: np.asarray(value, dtype=np.str_) if isinstance(value, list) else value
                for name, value in values.items() if value is not None}


def _rows_at(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the tokens of `rows` in the flat array, and the offsets of the selection."""
    lengths = offsets[rows + 1] - offsets[rows]
    selected = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
    starts = np.repeat(offsets[rows] - selected[:-1], lengths)
    return starts + np.arange(selected[-1], dtype=np.int64), selected


def concatenated(datasets: Sequence[TokenDataset]) -> TokenDataset:
    """The rows of several data sets, one after the other; all for one kind of model."""
    if len(datasets) == 1:
        return datasets[0]

    def shifted(offsets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        lengths = np.concatenate([np.diff(part) for part in offsets])
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    sources = [part.source_ids for part in datasets if part.source_ids is not None]
    source_offsets = [part.source_offsets for part in datasets if part.source_offsets is not None]
    assert len(sources) in (0, len(datasets)), "decoder-only and encoder-decoder rows do not mix"
    return TokenDataset(
        np.concatenate([part.ids for part in datasets]), np.concatenate([part.loss_mask for part in datasets]),
        shifted([part.offsets for part in datasets]), np.concatenate([part.num_bytes for part in datasets]),
        [item for part in datasets for item in part.items], [name for part in datasets for name in part.clusters],
        np.concatenate(sources) if sources else None, shifted(source_offsets) if sources else None)
