"""The base of everything a study writes: frozen, unknown keys refused, numbers that are finite and are no truth values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

NUMBERS = frozenset({int, float, type(None)})


class Settings(BaseModel):
    """A frozen model whose numbers are numbers: pydantic alone reads `true` as 1, and takes `.inf`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if any(isinstance(item, bool) for item in _items(value)):
            wanted = set(_leaves(cls.model_fields[str(info.field_name)].annotation))
            if {int, float} & wanted and wanted <= NUMBERS:
                raise ValueError("true and false are no numbers")
        return value


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that values have: `int` and `None` of `tuple[int, ...] | None`; keys of mappings are not among them."""
    parts = [part for part in getattr(annotation, "__args__", ()) if part is not Ellipsis]
    if getattr(annotation, "__origin__", None) is dict:
        parts = parts[1:]
    if not parts:
        yield annotation
    for part in parts:
        yield from _leaves(part)


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if not isinstance(value, (list, tuple)):
        yield value
        return
    for item in value:
        yield from _items(item)
