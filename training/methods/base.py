"""What the loop expects of a method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from training.checkpoint import StateError
from training.compute import Compute
from training.config import Section
from training.datasets import Data
from training.graph import Graph
from training.health import Symptom

Draw = Callable[[], tuple[Tensor, ...]]
"""The next batch of the training split, already on the device."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    nimg: int
    """Generator steps so far times `batch_size`; a method may draw more real items than one batch in a step."""
    total_nimg: int
    batch_size: int

    @property
    def step(self) -> int:
        """Iterations done so far."""
        return self.nimg // self.batch_size

    @property
    def fraction(self) -> float:
        """0 at the beginning of the schedule, 1 at its end."""
        return self.nimg / self.total_nimg


class AbstractMethod(ABC):
    """Networks, their optimisers and one training step."""

    Config: ClassVar[type[Section]]
    """The recipe's tables that belong to the method."""
    Data: ClassVar[type[Data]]
    """What it learns from."""
    directions: ClassVar[tuple[str, ...]] = ()
    """Names of the generators that one run trains, each for a bundle of its own; empty if there is but one."""
    symptoms: ClassVar[Mapping[str, Symptom]] = {}
    """Ways of going wrong that show in what `step` and `diversity` report."""
    advice_on_nan: ClassVar[str]
    """What to try when numbers stop being numbers."""

    networks: dict[str, nn.Module]
    """Everything that has weights to save, averages included."""
    optimizers: dict[str, Optimizer]

    @abstractmethod
    def __init__(self, config: Any, data: Any, held_out: Callable[[], Any], compute: Compute) -> None:
        """Build the networks for these data; initial weights come from torch's global random state.

        Args:
            config: an instance of `Config`.
            data: the training split, an instance of `Data`.
            held_out: reads the other split, for a method that shows what it makes of its items.
        """

    @abstractmethod
    def step(self, draw: Draw, progress: Progress) -> dict[str, Tensor]:
        """One iteration: each network's update and the averages'. Returns scalars to report, detached."""

    @abstractmethod
    def preview(self) -> NDArray[np.uint8]:
        """Pictures [rows, columns, H, W, C] from fixed inputs; takes nothing from torch's global random state."""

    @abstractmethod
    def graph(self, direction: str | None = None) -> Graph:
        """The averaged generator with everything around it that a picture depends on.

        Args:
            direction: one of `directions`; None if it has none.
        """

    def diversity(self) -> float | None:
        """Spread of the samples' features over that of the data's, about 1 when healthy; None if it means nothing."""
        return None

    def _update(self, name: str, loss: Tensor) -> None:
        """One step of the optimiser `name` down the gradient of `loss`."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`.

        Raises:
            StateError: if it is that of other networks.
        """
        try:
            for name, network in self.networks.items():
                network.load_state_dict(state["networks"][name])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
        except (KeyError, RuntimeError, ValueError) as error:  # a name, a shape, a number of parameters
            raise StateError(
                f"the saved {name} is not the one that the run's recipe builds today. Bring back the recipe.toml, or "
                "the version of this program, that it was trained with, or start anew with --run."
            ) from error
