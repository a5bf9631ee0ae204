import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from training import checkpoint, loop
from training.__main__ import build, restore
from training.datasets import Pictures
from training.methods import AbstractMethod
from training.recipe import Recipe, parse_recipe
from training.run import Run, RunError

BUILD_AND_TRAIN = "import sys; from training.__main__ import main; sys.exit(main(sys.argv[1:]))"


def train(recipe: Recipe, run: Run, method: AbstractMethod | None = None) -> AbstractMethod:
    data = recipe.data.load("train")
    method = method or build(recipe, data)
    if not run.exists():
        run.create(recipe)
    loop.train(recipe, data, method, run)
    return method


def weights(run: Run) -> dict[str, torch.Tensor]:
    state = checkpoint.load(run.state_file)
    return {
        f"{network}.{name}": tensor
        for network, tensors in state["method"]["networks"].items()
        for name, tensor in tensors.items()
    }


def assert_same_weights(run: Run, other: Run) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


class StopsAt:
    """A method that asks its own process to stop after some steps, or makes numbers bad."""

    def __init__(self, method: AbstractMethod, action, at: int) -> None:
        self._method, self._action, self._at, self._steps = method, action, at, 0

    def __getattr__(self, name):
        return getattr(self._method, name)

    def step(self, draw, progress):
        scalars = self._method.step(draw, progress)
        self._steps += 1
        if self._steps == self._at:
            self._action(self._method)
        return scalars


@pytest.fixture
def uninterrupted(recipe, tmp_path) -> Run:
    run = Run(tmp_path / "uninterrupted")
    train(recipe, run)
    return run


def test_a_recipe_that_is_lost_on_the_way_costs_no_work(recipe, tmp_path):
    run = Run(tmp_path / "run")
    data = recipe.data.load("train")
    train(recipe, run, StopsAt(build(recipe, data), lambda _: run.recipe_file.unlink(), at=5))
    assert checkpoint.load(run.state_file)["nimg"] == 240


def test_a_run_leaves_everything_behind(uninterrupted):
    lines = [json.loads(line) for line in uninterrupted.metrics_file.read_text().splitlines()]
    assert [line["nimg"] for line in lines] == [40, 80, 120, 160, 200, 240]
    assert {"loss/discriminator", "loss/generator", "logits/real", "logits/fake", "samples/diversity"} <= lines[
        0
    ].keys()
    assert [int(sheet.stem) for sheet in uninterrupted.sheets()] == [0, 80, 160, 240]
    with Image.open(uninterrupted.animation_file) as animation:
        assert animation.n_frames > 1
    assert list(uninterrupted.tensorboard.glob("events*"))
    assert uninterrupted.recipe().schedule.total_kimg == 0.24


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [3, 13, 20])
def test_stopped_and_started_again_is_as_never_stopped(recipe, tmp_path, uninterrupted, number, at):
    run = Run(tmp_path / "stopped")
    method = build(recipe, recipe.data.load("train"))
    stopping = StopsAt(method, lambda _: signal.raise_signal(number), at)
    with pytest.raises(loop.TrainingStopped, match=r"saved at .* the same command goes on"):
        train(recipe, run, stopping)
    train(recipe, run)
    assert_same_weights(run, uninterrupted)
    assert run.metrics_file.read_text() == uninterrupted.metrics_file.read_text()


def test_killed_and_started_again_is_as_never_killed(recipe, tmp_path, uninterrupted):
    recipe_file = tmp_path / "tiny.toml"
    recipe_file.write_text(recipe.to_toml())
    run = Run(tmp_path / "killed")
    command = [sys.executable, "-c", BUILD_AND_TRAIN, "train", str(recipe_file), "--run", str(run.path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run.previews / "0000000080.png").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    train(recipe, run)
    assert_same_weights(run, uninterrupted)


def test_a_finished_run_is_left_alone(recipe, uninterrupted):
    before = weights(uninterrupted)
    train(recipe, uninterrupted)
    after = weights(uninterrupted)
    assert all(torch.equal(before[name], after[name]) for name in before)


def poison(method: AbstractMethod) -> None:
    with torch.no_grad():
        next(method.generator.parameters()).fill_(torch.nan)


def test_nan_returns_once_to_the_last_good_state(recipe, tmp_path, caplog):
    run = Run(tmp_path / "run")
    method = StopsAt(build(recipe, recipe.data.load("train")), poison, at=14)
    train(recipe, run, method)
    assert "returned to 80 images" in caplog.text
    assert all(tensor.isfinite().all() for tensor in weights(run).values())
    state = checkpoint.load(run.state_file)
    assert (state["nimg"], state["rollbacks"]) == (240, 1)


def test_nan_again_ends_the_run_and_keeps_the_good_state(recipe, tmp_path):
    run = Run(tmp_path / "run")

    class AlwaysBad(StopsAt):
        def step(self, draw, progress):
            scalars = self._method.step(draw, progress)
            if progress.nimg >= 88:
                poison(self._method)
            return scalars

    with pytest.raises(loop.TrainingDiverged, match="lower learning rate"):
        train(recipe, run, AlwaysBad(build(recipe, recipe.data.load("train")), None, 0))
    assert all(tensor.isfinite().all() for tensor in weights(run).values())
    # And the same command again does not begin to loop.
    with pytest.raises(loop.TrainingDiverged):
        train(recipe, run, AlwaysBad(build(recipe, recipe.data.load("train")), None, 0))


def test_two_processes_cannot_train_in_one_directory(tmp_path):
    run = Run(tmp_path / "run")
    with run.locked(), pytest.raises(RunError, match="another process"), Run(run.path).locked():
        pass


def test_a_changed_recipe_does_not_go_on_with_the_old_run(recipe, tables, tmp_path, uninterrupted):
    longer = recipe.lasting(99)
    uninterrupted.expect(longer)  # --hours may have changed the length
    tables["objective"] = {"name": "hinge"}
    with pytest.raises(RunError, match=r"objective\.name: 'relativistic' -> 'hinge'"):
        uninterrupted.expect(parse_recipe(tables, "the changed one"))


def test_the_measured_speed_is_positive_and_spends_no_random_numbers_of_the_run(recipe, monkeypatch):
    monkeypatch.setattr(loop, "SPEED_TEST_SECONDS", 0.2)
    data = recipe.data.load("train")
    assert loop.images_per_second(recipe, data, build(recipe, data)) > 0
    first = build(recipe, data).generator.stem.weight
    assert torch.equal(first, build(recipe, data).generator.stem.weight)


def test_after_a_return_stopping_and_starting_is_still_as_never_stopping(recipe, tmp_path):
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")

    def method() -> AbstractMethod:
        return StopsAt(build(recipe, recipe.data.load("train")), poison, at=14)

    train(recipe, whole, method())
    twice = StopsAt(method(), lambda _: signal.raise_signal(signal.SIGTERM), at=20)
    with pytest.raises(loop.TrainingStopped):
        train(recipe, stopped, twice)
    train(recipe, stopped)
    assert_same_weights(whole, stopped)


class Clock:
    """Stands where the module `time` does, and goes on only when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class TakesASecond(StopsAt):
    """A method whose steps take one second each by the clock, while nothing else takes any time."""

    def __init__(self, method: AbstractMethod, clock: Clock) -> None:
        super().__init__(method, None, 0)
        self._clock = clock

    def step(self, draw, progress):
        self._clock.now += 1
        return self._method.step(draw, progress)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("training.effort.time", clock)
    return clock


def test_the_time_of_the_steps_that_count_is_summed_over_all_starts(recipe, tmp_path, clock):
    def kill(_: AbstractMethod) -> None:
        raise KeyboardInterrupt

    def timed() -> AbstractMethod:
        return TakesASecond(build(recipe, recipe.data.load("train")), clock)

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):  # 12 steps, of which 10 have been saved
        train(recipe, Run(run), StopsAt(timed(), kill, at=12))
    assert checkpoint.load(Run(run).state_file)["effort"]["seconds"] == 10
    clock.now += 1000  # nobody trains
    with pytest.raises(loop.TrainingStopped):
        train(recipe, Run(run), StopsAt(timed(), lambda _: signal.raise_signal(signal.SIGTERM), at=5))
    clock.now += 1000
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        train(recipe, Run(run), timed())
    finally:
        torch.set_num_threads(threads)
    trained = restore(Run(run))[-1]
    assert (trained.nimg, trained.seconds) == (240, 30)
    assert [device.rsplit(", ")[-1].split()[0] for device in trained.devices] == [str(threads), str(threads + 1)]


def test_a_return_to_the_last_good_state_takes_back_its_time(recipe, tmp_path, clock):
    run = Run(tmp_path / "run")
    train(recipe, run, TakesASecond(StopsAt(build(recipe, recipe.data.load("train")), poison, at=14), clock))
    assert checkpoint.load(run.state_file)["effort"]["seconds"] == 30


def stopped_without(part, recipe, tmp_path):
    """A run that was stopped at its thirteenth step, by a version that did not keep this part of its state."""
    run = Run(tmp_path / "run")
    stopping = StopsAt(build(recipe, recipe.data.load("train")), lambda _: signal.raise_signal(signal.SIGTERM), at=13)
    with pytest.raises(loop.TrainingStopped):
        train(recipe, run, stopping)
    state = checkpoint.load(run.state_file)
    del state[part]
    checkpoint.save(state, run.state_file)
    return run


def test_a_state_from_before_time_was_kept_goes_on_and_the_time_stays_unknown(recipe, tmp_path):
    run = stopped_without("effort", recipe, tmp_path)
    _, _, _, trained = restore(run)
    assert (trained.nimg, trained.seconds, trained.devices) == (104, None, ())
    train(recipe, run)
    _, _, _, trained = restore(run)
    assert (trained.nimg, trained.seconds) == (240, None)


@pytest.mark.parametrize("n_critic", [1, 3])
def test_images_are_counted_by_the_steps_of_the_generator(tables, tmp_path, n_critic):
    recipe = parse_recipe({**tables, "n_critic": n_critic}, "the recipe").lasting(0.04)
    run = Run(tmp_path / "run")
    train(recipe, run)
    state = checkpoint.load(run.state_file)
    size = len(recipe.data.load("train"))
    drawn = state["sampler"]["epoch"] * (size // 8) * 8 + state["sampler"]["cursor"]
    assert (state["nimg"], drawn) == (40, 40 * (n_critic + 1))


def test_a_state_from_before_its_means_were_kept_goes_on(recipe, tmp_path, uninterrupted):
    run = stopped_without("averages", recipe, tmp_path)
    train(recipe, run)
    assert_same_weights(run, uninterrupted)


def test_other_data_are_noticed(recipe, uninterrupted):
    data = recipe.data.load("train")
    renamed = Pictures(data.pixels, data.labels, ("left", "above"))
    with pytest.raises(RunError, match="the data are not those"):
        loop.train(recipe, renamed, build(recipe, renamed), uninterrupted)
