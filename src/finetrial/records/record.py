"""The record of one stage: written last, so that a record that exists is complete.

Identity (`key`) says what was asked for; the environment class says on what kind of machine it was computed. A record
is looked up by both. `values` holds small JSON results; larger results are files beside the record, each with its
digest. An outcome is a value: a stage that ran out of memory has a record that says so, and no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from finetrial.fingerprint import key_of

RECORD_SCHEMA = 1


class Outcome(StrEnum):
    """How a stage ended. Everything but OK is shown as its word, never as a number."""

    OK = "OK"
    OOM = "OOM"
    DIVERGED = "DIVERGED"
    TIMEOUT = "TIMEOUT"
    FAILED = "FAILED"


class Environment(BaseModel):
    """The class of machine whose results are comparable bit for bit (given equal threads, which are in the key)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str  # "cpu", "cuda" or "mps"
    device_name: str | None = None  # the accelerator's name; None on CPUs
    torch: str
    transformers: str
    peft: str
    cpu_capability: str  # torch.backends.cpu.get_cpu_capability(), for example "AVX512"

    def key(self) -> str:
        """Eight digits that name this class in the store."""
        return key_of(self.model_dump())[:8]


class Record(BaseModel):
    """One finished stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = RECORD_SCHEMA
    key: str
    stage_id: str  # readable, for people and logs; not identity
    kind: str
    identity: Mapping[str, Any]  # what `key` is the digest of
    environment: Environment
    outcome: Outcome
    message: str = ""  # why, where the outcome is not OK: one sentence for people
    values: Mapping[str, Any] = Field(default_factory=dict)
    files: Mapping[str, str] = Field(default_factory=dict)  # POSIX path in the folder -> SHA-256
    started: str  # UTC, ISO 8601
    seconds: float
    execution: Mapping[str, Any] = Field(default_factory=dict)  # threads, micro-batch, retries, host, processor: not identity
