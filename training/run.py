"""A run's directory: resolved recipe, state, numbers, previews. The same command starts it and goes on with it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from PIL import Image

from service.manifest import Metric
from training import checkpoint, samples
from training.datasets import Data
from training.effort import KEY as EFFORT
from training.effort import Effort
from training.evaluation.base import Report
from training.files import written_aside
from training.recipe import Recipe, read_recipe

LOCK_FILE = ".lock"
EVALUATION_FILE = "evaluation.json"
MAY_DIFFER = {"schedule.total_kimg", "limitations"}
"""Keys in which a recipe may differ from the one that its run was started with."""


class RunError(Exception):
    """A run directory that cannot be used as asked; the message says what to do."""


class Run:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.toml"
        self.state_file = path / "state.pt"
        self.metrics_file = path / "metrics.jsonl"
        self.previews = path / "samples"
        self.animation_file = path / "progress.webp"
        self.tensorboard = path / "tensorboard"
        self.effort = Effort()
        """What the last state that was loaded has taken."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory against a second process; what was made and holds nothing else is removed in the end.

        Raises:
            RunError: if another process trains in it, or it cannot be made.
        """
        new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the directory {self.path}: {error.strerror}; choose another --run") from error
        lock = FileLock(self.path / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"another process is training in {self.path}; wait for it or choose another --run"
            ) from error
        try:
            for left in self.path.glob(f".{self.state_file.stem}.*{self.state_file.suffix}"):
                left.unlink()  # by a process that was killed while it saved, and as large as a state
            yield
        finally:
            with suppress(OSError):  # somebody has removed it
                if new and not {file.name for file in self.path.iterdir()} - {LOCK_FILE}:
                    (self.path / LOCK_FILE).unlink(missing_ok=True)
                    self.path.rmdir()
            lock.release()

    def exists(self) -> bool:
        """
        Raises:
            RunError: if there is a state, and the recipe that it belongs to is gone.
        """
        if self.state_file.exists() and not self.recipe_file.exists():
            raise RunError(
                f"{self.path} holds a {self.state_file.name} and no {self.recipe_file.name}, without which nobody "
                "knows its networks; put the recipe back, or choose another --run"
            )
        return self.recipe_file.exists()

    def create(self, recipe: Recipe) -> None:
        """Lay out the directory; the recipe comes last, because it is what makes it a run."""
        self.previews.mkdir(parents=True, exist_ok=True)
        with written_aside(self.recipe_file, durable=True) as aside:
            aside.write_text(recipe.to_toml())

    def recipe(self) -> Recipe:
        """The resolved recipe that the run was started with.

        Raises:
            RunError: if the directory holds no run.
        """
        if not self.exists():
            raise RunError(f"{self.path} holds no run: there is no {self.recipe_file.name} in it")
        return read_recipe(self.recipe_file)

    def expect(self, recipe: Recipe) -> None:
        """Check that `recipe` is what the run was started with. Its length may differ, as `--hours` changes it, and its
        limitations, which are known best when training is over.

        Raises:
            RunError: if anything else differs, naming it.
        """
        begun_with = self.recipe()
        if begun_with.name != recipe.name:
            raise RunError(
                f"{self.path} is a run of the recipe {begun_with.name!r}, not of {recipe.name!r}; choose another --run"
            )
        ours, theirs = (flat(r.resolved()) for r in (begun_with, recipe))
        differing = sorted(
            key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key) and key not in MAY_DIFFER
        )
        if differing:
            changes = "; ".join(f"{key}: {ours.get(key)!r} -> {theirs.get(key)!r}" for key in differing)
            raise RunError(
                f"{self.path} was started with another recipe ({changes}). "
                "Start the changed one elsewhere with --run, or delete the directory."
            )

    def save_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Keep `state`, and beside it what it has taken since `load_state`, on `device`.

        Raises:
            RunError: if it cannot be written.
        """
        try:
            checkpoint.save({**state, EFFORT: self.effort.state_dict(device)}, self.state_file)
        except OSError as error:
            raise RunError(
                f"cannot save {self.state_file}: {error.strerror}; what was saved before is whole, so mend this, for "
                "example by making room, and the same command goes on from there"
            ) from error

    def load_state(self, data: Data) -> dict[str, Any] | None:
        """The last saved state, or None before the first.

        Raises:
            RunError: if it was trained on other data than `data`.
            StateError: if it is damaged.
        """
        if not self.state_file.exists():
            self.effort = Effort()
            return None
        state = checkpoint.load(self.state_file)
        if state["data"] != data.fingerprint:
            raise RunError(
                f"the data are not those that {self.path} was started with (now they are {data}). "
                "Bring those back, or start anew with --run."
            )
        self.effort = Effort.going_on(state)
        return state

    def append_metrics(self, nimg: int, scalars: dict[str, float]) -> None:
        with self.metrics_file.open("a") as stream:
            stream.write(json.dumps({"nimg": nimg, **scalars}) + "\n")

    def forget_after(self, nimg: int) -> None:
        """Drop numbers and previews later than the state that training goes on from."""
        if self.metrics_file.exists():
            kept = []
            for line in self.metrics_file.read_text().splitlines():
                try:
                    if json.loads(line)["nimg"] <= nimg:
                        kept.append(line + "\n")
                except json.JSONDecodeError:  # the process was killed in the middle of this line
                    break
            with written_aside(self.metrics_file) as aside:
                aside.write_text("".join(kept))
        for sheet in self.sheets():
            if int(sheet.stem) > nimg:
                sheet.unlink()

    def add_sheet(self, nimg: int, image: Image.Image) -> None:
        samples.save(image, self.previews / f"{nimg:010d}.png")

    def sheets(self) -> list[Path]:
        """Previews in order of time."""
        return sorted(self.previews.glob("[0-9]*.png"))

    def save_evaluation(self, nimg: int, report: Report, direction: str | None = None) -> None:
        """Keep what was measured of the weights at `nimg`, with the files that belong to it."""
        folder = self._evaluation_folder(direction)
        aside = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, file in report.files.items():
            shutil.copyfile(file, aside / name)
        for name, picture in report.pictures.items():
            samples.save(picture, aside / name)
        values = {name: metric.model_dump() for name, metric in report.metrics.items()}
        (aside / EVALUATION_FILE).write_text(json.dumps({"nimg": nimg, "metrics": values}, indent=2))
        shutil.rmtree(folder, ignore_errors=True)  # never old numbers beside a new judge
        aside.replace(folder)

    def evaluation(self, nimg: int, direction: str | None = None) -> dict[str, Metric]:
        """What was measured of the weights at `nimg`; empty if nothing was, or only of others."""
        file = self._evaluation_folder(direction) / EVALUATION_FILE
        if not file.exists():
            return {}
        kept = json.loads(file.read_text())
        if kept["nimg"] != nimg:
            return {}
        return {name: Metric.model_validate(value) for name, value in kept["metrics"].items()}

    def evaluation_files(self, direction: str | None = None) -> list[Path]:
        """What goes into the bundle with the numbers."""
        folder = self._evaluation_folder(direction)
        return sorted(file for file in folder.iterdir() if file.name != EVALUATION_FILE)

    def _evaluation_folder(self, direction: str | None) -> Path:
        return self.path / ("evaluation" if direction is None else f"evaluation-{direction}")

    def animate(self) -> None:
        samples.animate(self.sheets(), self.animation_file)


def flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
