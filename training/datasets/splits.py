"""Which items are held out: a function of the item's key alone, so that splits agree over sets and over time."""

import hashlib

from training.config import RecipeError
from training.datasets.base import Split


def check_share(held_out: float) -> None:
    """
    Raises:
        RecipeError: if `held_out` is no share of a set.
    """
    if not 0 <= held_out < 1:
        raise RecipeError(f"held_out is {held_out}; it must be a share from 0 to below 1")


def split_of(key: str, held_out: float) -> Split:
    """The split of everything that has this key; `held_out` is the share of keys that `test` gets."""
    first_bytes = _digest(key)[:8]
    return "test" if int.from_bytes(first_bytes) < held_out * 2**64 else "train"


def half_of(key: str) -> int:
    """0 or 1, independent of `split_of`."""
    return _digest(key)[8] % 2


def _digest(key: str) -> bytes:
    # A file's name is bytes; where they are no UTF-8, Python keeps them as surrogates, and this gives them back.
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
