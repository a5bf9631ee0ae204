"""How long training has taken and on what, which the card of a bundle tells."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from service.golden import this_hardware

KEY = "effort"
"""Under which a saved state holds it."""


@dataclass
class Effort:
    """What the steps up to some state have taken, summed over all processes that made them.

    Counted is all the time that a process trained, its reports, previews and saves included; not that of steps which a
    kill or a return to an earlier state undid.
    """

    seconds: float | None = 0.0
    """Up to the state; None if nobody knows, because it was saved before this was kept."""
    devices: tuple[str, ...] = ()
    """In the order of their first use."""

    def __post_init__(self) -> None:
        self._since = time.monotonic()

    @classmethod
    def going_on(cls, state: Mapping[str, Any]) -> "Effort":
        """From a saved state, and from now on."""
        kept = state.get(KEY, {"seconds": None, "devices": []})
        return cls(kept["seconds"], tuple(kept["devices"]))

    def state_dict(self, device: torch.device) -> dict[str, Any]:
        """What `going_on` reads: all until now, and the device of this process."""
        seconds = None if self.seconds is None else round(self.seconds + time.monotonic() - self._since, 1)
        return {"seconds": seconds, "devices": list(dict.fromkeys([*self.devices, describe(device)]))}


def describe(device: torch.device) -> str:
    """A device as a person knows it: `Intel Xeon Processor, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{this_hardware('torch').cpu or device.type}, {threads} thread{'' if threads == 1 else 's'}"
