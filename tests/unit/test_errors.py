"""What counts as a lack of memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from finetrial.errors import is_out_of_memory

CREATE = "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"


@pytest.mark.parametrize(("error", "expected"), [
    (MemoryError(), True), (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
    (OSError("[Errno 12] Cannot allocate memory"), True), (ValueError("out of memory"), False),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, ...)`"), False)])
def test_the_words_that_say_so(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def broken() -> tuple[int, int]:
    raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(("text", "memory", "expected"), [
    (CREATE, lambda: (200 << 20, 16 << 30), True), (CREATE, lambda: (9 << 30, 16 << 30), False), (CREATE, broken, False),
    ("CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSetStream(handle)`", lambda: (0, 16 << 30), False)])
def test_a_library_that_cannot_start_lacks_memory_where_the_gpu_is_full(
        monkeypatch: pytest.MonkeyPatch, text: str, memory: Callable[[], tuple[int, int]], expected: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    assert is_out_of_memory(RuntimeError(text)) is expected


def test_without_a_gpu_it_lacks_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not is_out_of_memory(RuntimeError(CREATE))
