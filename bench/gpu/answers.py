"""Does the device write what the CPU writes: greedily, drawn, and with beams; how fast, and with too little memory?"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from unittest import mock

from gpu.setting import Finding, Precision, Setting, release

ROOM, BEAMS, NUM_ENDS = 32, 4, 16
ALIKE = 0.9  # of the answers: where two tokens are as good as equal, rounding decides
SPARE_BYTES = 3 << 30  # where memory is short: with beams GPT-2's keys and values of 64 such answers take 4.3 GB

Ids = tuple[int, ...]


def answers(setting: Setting) -> Iterator[Finding]:
    """The answers of the CPU, in fp32; new tokens a second and memory, in fp32 and bf16; the same answers when memory runs out."""
    from finetrial.models.bundled.pretrain_data import TOKENIZER_FOLDER
    from finetrial.models.load import load_base

    prompts = _prompts(setting, 16 if setting.dry else 64)
    for kind, folder in (("GPT-2", setting.model("tiny")), ("T5", TOKENIZER_FOLDER.with_name("tiny-t5"))):
        if not (folder / "model.safetensors").is_file():
            yield Finding(f"answers as on the CPU: {kind}", None, f"not checked: {folder} has no weights")
            continue
        base = load_base(folder)
        for name, how in _ways().items():
            ends = _ends(_decoded(base, "cpu", prompts, **how))
            there, here = (_decoded(base, device, prompts, ends, **how) for device in ("cpu", setting.device))
            yield _compared(f"answers as on the CPU: {kind}, {name}", there, here)
    base = load_base(setting.model(setting.shape))
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        for name, how in _ways().items():
            yield _timed(setting, base, prompts, f"writes: {name}, {precision}", precision=precision, **how)
    if setting.is_cuda and not setting.dry:  # what small answers need would not fill what is left free
        yield _short_of_memory(setting, base, prompts)
    del base
    release(setting)


def _ways() -> dict[str, dict[str, Any]]:
    """Nothing may be said twice: a model of random weights repeats its last token for ever."""
    from finetrial.generate import Beams, Constraints, Sampling
    from finetrial.streams import Streams

    constraints = Constraints(no_repeat_ngram_size=2, min_new_tokens=2)
    return {"greedy": {"constraints": constraints},
            "drawn": {"constraints": constraints, "sampling": Sampling(Streams(0), temperature=0.7, top_k=50, top_p=0.9)},
            f"{BEAMS} beams": {"constraints": constraints, "beams": Beams(BEAMS)}}


def _prompts(setting: Setting, number: int) -> list[list[int]]:
    """Beginnings of rows, of 8 tokens and more."""
    rows = setting.rows(number)
    return [[int(token) for token in rows.row(row)[:8 + 3 * row]] for row in range(number)]


def _ends(found: Sequence[Ids]) -> set[int]:
    """Tokens at which some of these answers would end, early and late."""
    return {ids[(2 * place) % len(ids)] for place, ids in enumerate(found[-NUM_ENDS:])}


def _decoded(base: Any, device: str, prompts: Sequence[Sequence[int]], ends: Collection[int] = (), **how: Any) -> list[Ids]:
    """Unless told otherwise in slots for a third of the prompts, so that others take the places of those that have ended."""
    from finetrial.generate import decode

    third = len(prompts) * (max(map(len, prompts)) + ROOM) // 3
    found = decode(base.model.to(device), base.tokenizer, prompts, max_new_tokens=ROOM, end_tokens=ends,
                   **{"batch_tokens": third, **how})
    return [answer.ids for answer in found]


def _compared(name: str, there: Sequence[Ids], here: Sequence[Ids], more: str = "") -> Finding:
    equal = sum(one == other for one, other in zip(there, here, strict=True))
    return Finding(name, equal >= ALIKE * len(there), f"{equal} of {len(there)} equal, of {min(map(len, here))} to "
                   f"{max(map(len, here))} new tokens (at least {ALIKE:.0%} equal){more}")


def _timed(setting: Setting, base: Any, prompts: Sequence[Sequence[int]], name: str, **how: Any) -> Finding:
    from finetrial.stages.memory import MemoryMeter

    _decoded(base, setting.device, prompts[:2], **how)  # what is loaded at the first use
    release(setting)
    meter, started = MemoryMeter(setting.device), time.perf_counter()
    found = _decoded(base, setting.device, prompts, batch_tokens=1 << 15, **how)
    seconds, peaks = time.perf_counter() - started, meter.peaks()
    peak = peaks["peak_device_allocated_bytes" if setting.is_cuda else "peak_host_bytes"]
    return Finding(name, None, f"{sum(map(len, found)) / seconds:,.0f} new tokens/s, {seconds:.1f} s for {len(found)} answers; "
                   f"peak {'unknown' if peak is None else f'{peak / 1e6:,.0f} MB'}")


def _short_of_memory(setting: Setting, base: Any, prompts: Sequence[Sequence[int]]) -> Finding:
    """All answers at once, with beams, where their keys and values have no room: fewer at a time give the same."""
    import torch

    from finetrial.generate import decoding

    how: dict[str, Any] = {**_ways()[f"{BEAMS} beams"], "batch_tokens": 1 << 20}
    tried: list[int] = []

    def noting(model: Any, slots: int, longest: int, room: int, make: Any = decoding.live_rows) -> Any:
        tried.append(slots)
        return make(model, slots, longest, room)

    plenty = _decoded(base, setting.device, prompts, **how)
    release(setting)
    index = torch.device(setting.device).index or 0
    share = (torch.cuda.memory_reserved(index) + SPARE_BYTES) / torch.cuda.mem_get_info(index)[1]
    try:
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), index)
        with mock.patch.object(decoding, "live_rows", noting):
            short = _decoded(base, setting.device, prompts, **how)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)
    found = _compared("answers with little memory", plenty, short, f"; rows at a time: {', '.join(map(str, tried))}")
    return found if len(tried) > 1 else Finding(found.name, False, f"memory did not run out; {found.text}")
