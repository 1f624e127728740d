"""Limits that are known to be missed before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_study import save_tiny_base, write_text

from finetrial.compare import compare
from finetrial.compare.arms import parse_arms
from finetrial.compare.design import Timed
from finetrial.compare.limits import beyond_limits
from finetrial.errors import UserError
from finetrial.models.shapes import count_parameters
from finetrial.spec.study import Limits

CONFIG = {"model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 2, "vocab_size": 99, "n_positions": 1024}
WAYS = parse_arms("full,lora:r=4")


def test_parameters_are_known_before_the_timing() -> None:
    total = count_parameters(CONFIG)
    assert total is not None
    assert beyond_limits(WAYS, CONFIG, Limits()) == {}
    assert beyond_limits(WAYS, CONFIG, Limits(max_trainable_share=0.5)) == {
        "full": "it trains 100 % of the base's parameters; the limit is 50.0 %"}
    assert list(beyond_limits(WAYS, CONFIG, Limits(max_trainable=total - 1))) == ["full"]
    with pytest.raises(UserError, match=r"no arm stays within the limits \(full: it trains 100 % .*; lora-r4: it trains "):
        beyond_limits(WAYS, CONFIG, Limits(max_trainable_share=0.001))


def test_memory_is_known_after_it() -> None:
    timed = {"full": Timed(1.0, 1.0, 1.0, 2_000_000_000), "lora-r4": Timed(1.0, 1.0, 1.0, 900_000_000)}
    assert beyond_limits(WAYS, CONFIG, Limits(max_memory_bytes=10**9)) == {}
    assert list(beyond_limits(WAYS, CONFIG, Limits(max_memory_bytes=10**9), timed)) == ["full"]
    with pytest.raises(UserError, match="lora-r4: it needs "):
        beyond_limits(WAYS, CONFIG, Limits(max_memory_bytes=10**8), timed)
    assert beyond_limits(WAYS, CONFIG | {"model_type": "unheard-of"}, Limits(max_memory_bytes=10**8)) == {}


def test_a_comparison_is_refused_before_its_data_are_read(tmp_path: Path) -> None:
    model = save_tiny_base(tmp_path / "model")
    data = write_text(tmp_path / "new.txt", step=7, documents=9)  # too few: it would be told next
    asked = compare.Comparison(str(model), str(data), None, 240.0, "full,lora:r=2", Limits(max_trainable_share=0.001))
    with pytest.raises(UserError, match="no arm stays within the limits"):
        compare.look(asked, tmp_path)
