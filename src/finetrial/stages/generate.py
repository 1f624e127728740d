"""Generate: what the base or an adapted model answers to every prompt of one task and split.

Raw outputs are kept; every score made of them later needs no model. In fp32 an answer does not depend on who shares its
batch. In bf16 it does: the batches follow from the data and from `BATCH_TOKENS`, so a change of it bumps the version.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.errors import UserError
from finetrial.stages.adapted import answer_digest, answering_model
from finetrial.stages.base import StageContext, StageKind, StageTimeout

if TYPE_CHECKING:
    from finetrial.generate import Beams, Constraints, Generation, Sampling

OUTPUTS = "outputs.parquet"
GREEDY: Mapping[str, Any] = {"do_sample": False}


class Generate(StageKind):
    """Writes `outputs.parquet`: item, cluster, sample, output (text without special tokens), num_new_tokens (the end
    token counted), finished (one was reached)."""

    version: ClassVar[int] = 2  # 1 read an answer's text without its prompt

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """One row an item and sample, in the order of the data. `spec["decoding"]` is greedy where it is left out.

        Raises DataError for a prompt longer than the model's context, ModelError for a model without a head,
        StageTimeout.
        """
        from finetrial.generate import decode
        from finetrial.tasks.chat import reply_ends
        from finetrial.tasks.encoded import TokenDataset

        spec = context.spec
        prompts = TokenDataset.load(context.inputs["data"].folder / f"{spec['split']}-prompts.npz")
        written = spec.get("decoding", GREEDY)
        sampling, num_samples = _sampling(written)
        beams, constraints = _search(written)
        answers = answering_model(context)
        ends = [*spec.get("end_tokens", ()), *(reply_ends(answers.base.tokenizer) if _is_chat(context) else ())]
        rows = [(row, sample) for row in range(len(prompts)) for sample in range(num_samples)]
        read = [prompts.row(row) for row in range(len(prompts))]
        started = time.monotonic()
        found = decode(answers.base.model.to(context.device), answers.base.tokenizer, [read[row] for row, _ in rows],
                       max_new_tokens=spec["max_new_tokens"], end_tokens=ends, sampling=sampling, beams=beams,
                       constraints=constraints, precision=spec["precision"],
                       names=[f"{prompts.items[row]}/{sample}" for row, sample in rows],
                       on_done=lambda count: _report(context, count, len(rows)))
        seconds = time.monotonic() - started
        _write(context, answers.base.tokenizer, prompts, rows, found)
        return {"num_items": len(prompts), "num_samples": num_samples, "seconds": seconds,
                "num_new_tokens": sum(len(answer.ids) for answer in found),
                "num_finished": sum(answer.finished for answer in found), "answer_digest": answer_digest(context, answers)}


def _is_chat(context: StageContext) -> bool:
    """Whether the prompts were rendered by the tokenizer's chat template."""
    return "chat_template" in context.inputs["data"].record.identity["spec"]


def _sampling(written: Mapping[str, Any]) -> tuple[Sampling | None, int]:
    """How tokens are drawn, and the number of samples of each item: one where none are."""
    from finetrial.generate import Sampling
    from finetrial.streams import Streams

    if not written.get("do_sample", True):
        return None, 1
    num_samples = written.get("num_samples", 1)
    if num_samples < 1:
        raise UserError(f"num_samples is {num_samples}; expected at least 1")
    streams = Streams(written["seed"], written.get("replicate", ""))
    return Sampling(streams, written.get("temperature", 1.0), written.get("top_k"), written.get("top_p")), num_samples


def _search(written: Mapping[str, Any]) -> tuple[Beams | None, Constraints]:
    """The beams, and what outputs may not do."""
    from finetrial.generate import Beams, Constraints

    constraints = Constraints(written.get("no_repeat_ngram_size", 0), written.get("min_new_tokens", 0))
    if "num_beams" not in written:
        return None, constraints
    return Beams(written["num_beams"], written.get("length_penalty", 1.0), written.get("early_stopping", False)), constraints


def _report(context: StageContext, count: int, total: int) -> None:
    """Progress, and the end of the time there is."""
    if context.deadline is not None and time.monotonic() > context.deadline:
        raise StageTimeout(count)
    context.progress({"fraction": count / total})


def _write(context: StageContext, tokenizer: Any, prompts: Any, rows: Sequence[tuple[int, int]],
           found: Sequence[Generation]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from finetrial.tasks.chat import reply_opening
    from finetrial.tasks.space_mark import written

    opening = reply_opening(tokenizer) if _is_chat(context) else ""
    form = context.inputs["data"].record.identity["spec"].get("form", "decoder")
    outputs = [written(tokenizer, prompts.row(row), answer.without_end, form=form).removeprefix(opening)
               for (row, _), answer in zip(rows, found, strict=True)]
    table = pa.table({
        "item": [prompts.items[row] for row, _ in rows], "cluster": [prompts.clusters[row] for row, _ in rows],
        "sample": pa.array([sample for _, sample in rows], pa.int64()), "output": outputs,
        "num_new_tokens": pa.array([len(answer.ids) for answer in found], pa.int64()),
        "finished": [answer.finished for answer in found]})
    pq.write_table(table, context.folder / OUTPUTS)
