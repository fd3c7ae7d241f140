"""What every task gives: items, requests for a distribution over words."""

import dataclasses
from collections.abc import Mapping

from antiimit_jax.tasks.material import OURS, Material
from antiimit_jax.text.formats import Message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One request for a distribution over words."""

    item: str  # its name, unique in a run
    split: str
    cluster: str  # the unit of resampling: items that are alike bear one name
    messages: tuple[Message, ...]  # the last turn is left open
    words: tuple[str, ...]  # in the order the request names them
    targets: tuple[float, ...]
    facets: Mapping[str, int | str | float] = dataclasses.field(default_factory=dict)
    material: Material = OURS  # of a request that we phrase
