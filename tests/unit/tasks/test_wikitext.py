"""WikiText: lines to articles to pieces."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from loopback_hub import LoopbackHub

from finetrial.tasks.wikitext import Wikitext

SENTENCE = " The tower was built in 1391 and stands beside the river , where it can be seen from afar . \n"
LINES = ["", " = Tower = \n", "", SENTENCE * 2, " = = History = = \n", SENTENCE * 2, " = River = \n", SENTENCE * 3,
         " = Stub = \n", " Short . \n"]


def test_titles_open_articles_and_headings_do_not(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    examples = Wikitext(test=str(path)).load()
    assert [(row.cluster, row.split) for row in examples.rows] == [("Tower", "test"), ("River", "test")]
    text = examples.rows[0].fields["text"]
    assert "= Tower =" in text and "= = History = =" in text and "= River =" not in text
    assert examples.report.dropped["piece under 100 characters"] == 1
    segment, = Wikitext(test=str(path)).render(examples.rows[0])
    assert segment.loss and segment.cuttable and segment.text == text


def test_the_raw_configuration_is_fetched(hub: LoopbackHub) -> None:
    def file(name: str) -> bytes:
        data = io.BytesIO()
        lines = [f" = {name} {number} = \n{SENTENCE * 3}{number}" for number in range(8)]
        pq.write_table(pa.table({"text": [line + "\n" for text in lines for line in text.split("\n")]}), data)
        return data.getvalue()

    hub.add("dataset", "Salesforce/wikitext", {
        f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet": file(split) for split in ("train", "validation", "test")})
    assert Wikitext().load().report.rows == {"train": 8, "val": 8, "test": 8}
