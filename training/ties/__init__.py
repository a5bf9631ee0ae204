"""Ties: what keeps an output bound to its input when no pair says what it should be."""

from training.ties.base import AbstractTie, Bridge
from training.ties.cycle import Cycle
from training.ties.none import NoTie

TIES: dict[str, type[AbstractTie]] = {
    "cycle": Cycle,
    "none": NoTie,
}

__all__ = ["TIES", "AbstractTie", "Bridge"]
