"""What every row of the results is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Row(BaseModel):
    """A row of the results: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
