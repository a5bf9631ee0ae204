"""The one training loop. It knows schedule, state, reporting and saving; it names no paper and no network."""

import itertools
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training import checkpoint, samples
from training.datasets.base import Data
from training.health import Health, non_finite
from training.methods import AbstractMethod, Draw, Progress
from training.recipe import Recipe, Schedule
from training.run import Run
from training.sampler import EpochSampler

logger = logging.getLogger(__name__)

SPEED_TEST_SECONDS = 15.0
RESERVE = 0.95
"""Share of a time budget that goes into steps; previews, saves and a noisy machine take the rest."""


class TrainingDiverged(Exception):
    """NaN or infinity came back after the one return to the last good state."""


class TrainingStopped(Exception):
    """Somebody asked the run to stop; its state is saved."""


@dataclass
class Averages:
    """Means of scalars over the steps since the last report."""

    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means; begins anew."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    def is_finite(self) -> bool:
        return all(bool(total.isfinite().all()) for total in self._sums.values())


@dataclass
class State:
    """All that must survive a restart, besides torch's random state."""

    method: AbstractMethod
    sampler: EpochSampler
    data: str
    """Fingerprint of what is trained on."""
    device: torch.device
    nimg: int = 0
    rollbacks: int = 0
    averages: Averages = field(default_factory=Averages)

    def state_dict(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "sampler": self.sampler.state_dict(),
            "nimg": self.nimg,
            "rollbacks": self.rollbacks,
            "averages": self.averages.state_dict(),
            "data": self.data,
            "rng": checkpoint.capture_rng(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.sampler.load_state_dict(state["sampler"])
        self.nimg, self.rollbacks = state["nimg"], state["rollbacks"]
        # A state from before these were kept makes the next report one of the steps that follow.
        self.averages.load_state_dict(state.get("averages", Averages().state_dict()))
        checkpoint.restore_rng(state["rng"], self.device)

    def is_finite(self) -> bool:
        """Whether every weight, every number that the optimisers remember, and what is yet to be reported is finite."""
        networks, optimizers = self.method.networks.values(), self.method.optimizers.values()
        remembered = (t for o in optimizers for kept in o.state.values() for t in kept.values() if torch.is_tensor(t))
        weights = (t for network in networks for t in network.state_dict().values())
        finite = all(bool(tensor.isfinite().all()) for tensor in itertools.chain(weights, remembered))
        return finite and self.averages.is_finite()


def train(recipe: Recipe, data: Data, method: AbstractMethod, run: Run) -> None:
    """Train from wherever `run` stands to the end of the schedule.

    Raises:
        TrainingStopped: on SIGINT or SIGTERM, after the step in hand, with the state saved.
        TrainingDiverged: if numbers stop being finite for the second time.
    """
    schedule = recipe.schedule
    total_nimg = schedule.total_nimg
    sampler = EpochSampler(len(data), schedule.batch_size, recipe.seed)
    state = State(method, sampler, data.fingerprint, recipe.compute.torch_device)
    if (saved := run.load_state(data)) is not None:
        state.load_state_dict(saved)
        logger.info("going on from %d of %d images", state.nimg, total_nimg)
    run.forget_after(state.nimg)
    if saved is None:
        run.add_sheet(0, samples.sheet(method.preview()))
        run.save_state(state.state_dict(), state.device)

    draw = drawing(data, sampler, recipe.compute.torch_device)
    health = Health(method.symptoms)
    saved_nimg = state.nimg
    with (
        stop_signals() as stopping,
        SummaryWriter(str(run.tensorboard), purge_step=state.nimg + 1) as board,
        progress_bar(recipe.name, state.nimg, total_nimg) as bar,
    ):
        while state.nimg < total_nimg:
            state.averages.add(method.step(draw, Progress(state.nimg, total_nimg, schedule.batch_size)))
            state.nimg += schedule.batch_size
            bar.update(schedule.batch_size)
            done = state.nimg >= total_nimg

            # Report.
            if done or due(schedule.report_kimg, state.nimg, schedule):
                scalars = state.averages.take()
                if (bad := non_finite(scalars)) or not state.is_finite():
                    roll_back(state, run, data, bad or ["weights"])
                    bar.n = saved_nimg = state.nimg
                    bar.refresh()
                    continue
                if (diversity := method.diversity()) is not None:
                    scalars["samples/diversity"] = diversity
                run.append_metrics(state.nimg, scalars)
                for name, value in scalars.items():
                    board.add_scalar(name, value, state.nimg)
                bar.set_postfix({name.split("/")[-1]: f"{value:.3g}" for name, value in scalars.items()})
                for warning in health.check(scalars):
                    logger.warning("at %d images: %s", state.nimg, warning)

            # Preview.
            if done or due(schedule.preview_kimg, state.nimg, schedule):
                run.add_sheet(state.nimg, samples.sheet(method.preview()))

            # Save; never a state that could not be returned to.
            if (done or stopping or due(schedule.save_kimg, state.nimg, schedule)) and state.is_finite():
                run.save_state(state.state_dict(), state.device)
                saved_nimg = state.nimg
            if stopping and not done:
                raise TrainingStopped(f"saved at {saved_nimg} of {total_nimg} images; the same command goes on")
    run.animate()


def drawing(data: Data, sampler: EpochSampler, device: torch.device) -> Draw:
    """Batches of `data` on the device, in the sampler's order."""
    return lambda: tuple(tensor.to(device) for tensor in data.batch(sampler.draw()))


def progress_bar(title: str, nimg: int, total_nimg: int) -> "tqdm[Any]":
    """Images done, images/s and time left; in a log file, a line now and then."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=total_nimg, initial=nimg, unit="img", unit_scale=True, desc=title, smoothing=0.05, mininterval=interval
    )


def due(every_kimg: float, nimg: int, schedule: Schedule) -> bool:
    """Whether the last step went past a multiple of `every_kimg`."""
    every = every_kimg * 1000
    return nimg // every > (nimg - schedule.batch_size) // every


def roll_back(state: State, run: Run, data: Data, bad: list[str]) -> None:
    """Return to the last saved state, once in a run's life, and go on with other random numbers."""
    what = f"{', '.join(bad)} became NaN or infinite before {state.nimg} images"
    advice = state.method.advice_on_nan
    saved = run.load_state(data)
    if saved is None or saved["rollbacks"] > 0:
        raise TrainingDiverged(
            f"{what}, after a return to the last good state already. {advice} Start it as a new run."
        )
    state.load_state_dict(saved)
    state.rollbacks += 1
    torch.manual_seed(torch.initial_seed() + state.rollbacks)
    state.sampler.reseed(state.sampler.seed + state.rollbacks)
    run.forget_after(state.nimg)
    # At once, so that a kill does not buy another try.
    run.save_state(state.state_dict(), state.device)
    logger.warning("%s; returned to %d images and went on with other random numbers. %s", what, state.nimg, advice)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is filled by SIGINT and SIGTERM instead of their usual effect."""
    received: list[int] = []
    usual = {
        number: signal.signal(number, lambda signum, _: received.append(signum))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def images_per_second(recipe: Recipe, data: Data, method: AbstractMethod) -> float:
    """Measured speed of training steps; `method` is spent afterwards."""
    schedule = recipe.schedule
    draw = drawing(data, EpochSampler(len(data), schedule.batch_size, recipe.seed), recipe.compute.torch_device)

    def run_for(seconds: float, nimg: int) -> int:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            method.step(draw, Progress(nimg, schedule.total_nimg, schedule.batch_size))
            nimg += schedule.batch_size
        return nimg

    warm = run_for(SPEED_TEST_SECONDS / 5, 0)  # kernels choose themselves in the first steps
    began = time.monotonic()
    return (run_for(SPEED_TEST_SECONDS, warm) - warm) / (time.monotonic() - began)
