"""Nested dicts and their dotted names."""

from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> leaf, in the tree's order; an empty dict is a leaf."""
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of nested dicts with these leaves by dotted name."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *groups, last = name.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = leaf
    return tree
