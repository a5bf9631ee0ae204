"""A run's directory: resolved recipe, state, numbers, previews. The same command starts it and goes on with it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from service.manifest import Metric
from training import checkpoint, samples
from training.datasets import Data
from training.judge import JUDGE_FILE
from training.recipe import Recipe, read_recipe


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
        self.evaluation_file = path / "evaluation.json"
        self.judge_file = path / JUDGE_FILE

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory against a second process.

        Raises:
            RunError: if another process trains in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"another process is training in {self.path}; wait for it or choose another --run"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def exists(self) -> bool:
        return self.recipe_file.exists()

    def create(self, recipe: Recipe) -> None:
        """Lay out a fresh directory; the recipe comes last, because it is what makes it a run."""
        self.previews.mkdir(parents=True, exist_ok=True)
        aside = self.recipe_file.with_suffix(".writing")
        aside.write_text(recipe.to_toml())
        aside.replace(self.recipe_file)

    def recipe(self) -> Recipe:
        """The resolved recipe that the run was started with.

        Raises:
            RunError: if the directory holds no run.
        """
        if not self.exists():
            raise RunError(f"{self.path} holds no run: there is no {self.recipe_file.name} in it")
        return read_recipe(self.recipe_file)

    def expect(self, recipe: Recipe) -> None:
        """Check that `recipe` is what the run was started with; its length may differ, as `--hours` changes it.

        Raises:
            RunError: if anything else differs, naming it.
        """
        ours, theirs = (_flat(r.resolved()) for r in (self.recipe(), recipe))
        differing = sorted(
            key
            for key in ours.keys() | theirs.keys()
            if ours.get(key) != theirs.get(key) and key != "schedule.total_kimg"
        )
        if differing:
            changes = "; ".join(f"{key}: {ours.get(key)!r} -> {theirs.get(key)!r}" for key in differing)
            raise RunError(
                f"{self.path} was started with another recipe ({changes}). "
                "Start the changed one elsewhere with --run, or delete the directory."
            )

    def save_state(self, state: dict[str, Any]) -> None:
        checkpoint.save(state, self.state_file)

    def load_state(self, data: Data) -> dict[str, Any] | None:
        """The last saved state, or None before the first.

        Raises:
            RunError: if it was trained on other data than `data`.
        """
        if not self.state_file.exists():
            return None
        state = checkpoint.load(self.state_file)
        if state["data"] != data.fingerprint:
            raise RunError(
                f"the data are not those that {self.path} was started with (now they are {data}). "
                "Bring those back, or start anew with --run."
            )
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
            aside = self.metrics_file.with_suffix(".writing")
            aside.write_text("".join(kept))
            aside.replace(self.metrics_file)
        for sheet in self.sheets():
            if int(sheet.stem) > nimg:
                sheet.unlink()

    def add_sheet(self, nimg: int, image: Image.Image) -> None:
        samples.save(image, self.previews / f"{nimg:010d}.png")

    def sheets(self) -> list[Path]:
        """Previews in order of time."""
        return sorted(self.previews.glob("[0-9]*.png"))

    def save_evaluation(self, nimg: int, metrics: dict[str, Metric], judge: Path) -> None:
        """Keep what was measured of the weights at `nimg`, with the judge that measured it."""
        self.evaluation_file.unlink(missing_ok=True)  # never old numbers beside a new judge
        aside = self.judge_file.with_suffix(".writing")
        shutil.copyfile(judge, aside)
        aside.replace(self.judge_file)
        values = {name: metric.model_dump() for name, metric in metrics.items()}
        aside = self.evaluation_file.with_suffix(".writing")
        aside.write_text(json.dumps({"nimg": nimg, "metrics": values}, indent=2))
        aside.replace(self.evaluation_file)

    def evaluation(self, nimg: int) -> dict[str, Metric]:
        """What was measured of the weights at `nimg`; empty if nothing was, or only of others."""
        if not self.evaluation_file.exists():
            return {}
        kept = json.loads(self.evaluation_file.read_text())
        if kept["nimg"] != nimg:
            return {}
        return {name: Metric.model_validate(value) for name, value in kept["metrics"].items()}

    def animate(self) -> None:
        samples.animate(self.sheets(), self.animation_file)


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
