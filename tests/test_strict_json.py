"""JSON that is written is JSON: other software's strict readers take it."""

from __future__ import annotations

import math

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import write_json


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_is_refused_and_nothing_is_written(tmp_path, value):
    file = tmp_path / "config.json"
    with pytest.raises(UserError, match="config.json.*JSON"):
        write_json(file, {"temperature": [1.0, {"deep": value}]})
    assert not file.exists()
