"""Nested dicts and their dotted names, and what a tree of arrays holds: bytes, and their hash."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


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


def n_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, abstract or not."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def digest(tree: Any) -> str:
    """SHA-256, as hex, of the names, types, shapes and bytes of a tree of arrays or bytes."""
    made = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.frombuffer(leaf, np.uint8) if isinstance(leaf, bytes) else np.asarray(leaf)
        made.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()
