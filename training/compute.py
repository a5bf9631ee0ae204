"""Where and how precisely the arithmetic is done."""

import contextlib
from typing import Literal, TypeVar

import torch
from torch import nn

from training.config import RecipeError, Section

Network = TypeVar("Network", bound=nn.Module)


class Compute(Section):
    """The `[compute]` table."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU where there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What networks compute in, on the way to penalties too; weights and losses stay fp32. On a CPU, bf16 wants AMX."""
    channels_last: bool = True
    """Memory layout of convolutions; faster on CPUs and on GPUs with tensor cores."""

    @property
    def torch_device(self) -> torch.device:
        """The device that `device` comes down to on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise RecipeError("compute.device is 'cuda', and torch finds none here; 'auto' takes what there is")
        return torch.device(self.device)

    def place(self, network: Network) -> Network:
        """The network on the device, in the memory layout."""
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        return network.to(self.torch_device, memory_format=layout)  # type: ignore[call-overload]

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which a network's forward pass runs."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bf16")
