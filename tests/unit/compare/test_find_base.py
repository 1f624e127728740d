"""What --model is taken for: a folder, a repository of the hub, or a bundled base."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetrial.compare.compare import find_base
from finetrial.errors import ModelError, UserError
from finetrial.plan.bases import resolve_base


@pytest.mark.parametrize(("model", "name"), [
    ("./nope/", "nope"), ("./nope my", "nope-my"), ("owner/", "owner"), ("../..//", "model"), ("./my@model", "my-model"), ("/nope/-/", "model")])
def test_what_is_not_there_is_told_as_that(model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    base = find_base(model, None)
    assert (base.name, base.source, base.revision) == (name, model, None)
    with pytest.raises(ModelError, match="no folder at"):
        resolve_base(base)


def test_a_repository_may_name_its_revision() -> None:
    for model, revision in (("owner/model@v1.2", None), ("owner/model@v1.2", "v1.2"), ("owner/model", "v1.2")):
        base = find_base(model, revision)
        assert (base.name, base.source, base.revision) == ("model", "owner/model", "v1.2")
    assert find_base("owner/model@refs/pr/1", None).revision == "refs/pr/1"
    with pytest.raises(UserError, match="are two revisions"):
        find_base("owner/model@v1.2", "main")


def test_a_folder_may_have_a_sign_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "model@v2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    base = find_base("owner/model@v2", None)
    assert (base.name, base.source, base.revision) == ("model-v2", str(tmp_path / "owner" / "model@v2"), None)
