"""Names of control arms."""

from __future__ import annotations

import pytest

from finetrial.analysis.naming import aa_name, positive_control_name
from finetrial.spec import Controls, PositiveControl


def test_names() -> None:
    controls = Controls(reference="full", positive=PositiveControl(arm="full", task="old", rate_factor=2.5))
    assert (positive_control_name(controls), aa_name(controls)) == ("full-x2.5", "full-aa")
    with pytest.raises(ValueError, match="no positive control"):
        positive_control_name(Controls(reference="full"))
