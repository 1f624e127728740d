"""What is printed of a comparison before it runs."""

from __future__ import annotations

from pathlib import Path

from tiny_study import tiny_content

from finetrial.cli.comparison_page import thin_tests
from finetrial.spec.study import Study


def test_too_few_rows_to_test_are_told_before_the_run_in_compare_s_own_words(tmp_path: Path) -> None:
    content = tiny_content(tmp_path)
    renamed = [{**use, "name": name, "num_test": count} for use, name, count in
               zip(content["tasks"], ("learn", "keep"), (50, 30), strict=True)]
    study = Study.model_validate({**content, "tasks": renamed, "controls": None, "hypotheses": []})
    assert thin_tests(study) == [("keep: only 30 rows to test, so intervals speak of little but these: give more data (--keep), for "
                                 "at least 50 rows to test")]
