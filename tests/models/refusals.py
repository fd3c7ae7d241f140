"""What every refusal of bad input owes its user."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from antiimit_jax.errors import UserError


@contextlib.contextmanager
def refused(*named: str) -> Iterator[None]:
    """Expects a `UserError` of one readable line in which each of `named` stands."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert message and message.isprintable() and len(message) < 1500, ascii(message)
    for part in named:
        alone = re.search(rf"(?<!\w){re.escape(part)}(?!\w)", message)
        assert alone, f"{part!r} not in {message!r}"
