"""Values that may never change: what is held out, and what a saved state knows its data by."""

import pytest
import torch

from training.datasets import Domains, Pairs, Pictures
from training.datasets.splits import half_of, split_of

PICTURES = torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2)


@pytest.mark.parametrize(
    ("key", "split", "half"),
    [
        ("1f600", "test", 1),
        ("2764", "train", 1),
        ("2615", "test", 0),
        ("face", "test", 1),
        ("über/straße", "test", 1),
        ("a\udcff", "train", 0),
    ],
)
def test_an_item_stays_in_its_split(key, split, half):
    """Another one would show what is held out to a run that goes on."""
    assert (split_of(key, 0.5), half_of(key)) == (split, half)


def test_a_share_of_the_keys_is_held_out_and_more_of_them_hold_what_fewer_do():
    tenth, fifth = ({key for key in map(str, range(2000)) if split_of(key, share) == "test"} for share in (0.1, 0.2))
    assert tenth < fifth
    assert (len(tenth), len(fifth)) == (204, 416)


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (Pictures(PICTURES, torch.tensor([0, 1, 0]), ("a", "b")), "315e0b1b61b9f84e"),
        (Pairs(PICTURES, PICTURES + 1, ("x", "y", "z")), "856fcf87f19bad86"),
        (Domains(PICTURES, PICTURES[:2], ("x", "y", "z"), ("x", "w")), "6a036b7a2ec78fc1"),
    ],
    ids=["pictures", "pairs", "domains"],
)
def test_data_keep_their_fingerprint(data, begins):
    """By which saved states and judges know them."""
    assert data.fingerprint.startswith(begins)
