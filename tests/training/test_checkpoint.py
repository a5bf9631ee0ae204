import resource

import pytest
import torch

from training import checkpoint
from training.__main__ import EXIT_FAILED, main
from training.checkpoint import StateError
from training.run import Run, RunError

STATE = {"weights": torch.arange(1000.0), "nimg": 8}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save(STATE, path)
    return path


def test_what_is_saved_is_loaded(saved):
    loaded = checkpoint.load(saved)
    assert torch.equal(loaded["weights"], STATE["weights"])
    assert loaded["nimg"] == 8
    assert [file.name for file in saved.parent.iterdir() if file.is_file()] == ["state.pt"]


def test_a_state_from_before_there_was_a_hash_is_loaded(tmp_path):
    torch.save(STATE, tmp_path / "state.pt")
    assert torch.equal(checkpoint.load(tmp_path / "state.pt")["weights"], STATE["weights"])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9])
def test_a_state_cut_short_is_refused_with_advice(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(StateError, match=r"state\.pt is damaged: \d+ bytes, and no whole state .* start anew"):
        checkpoint.load(saved)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9])
def test_one_changed_byte_is_noticed(saved, share):
    changed = bytearray(saved.read_bytes())
    changed[int(len(changed) * share)] ^= 1
    saved.write_bytes(changed)
    with pytest.raises(StateError, match=r"state\.pt is damaged: its bytes are not those that were saved; put a copy"):
        checkpoint.load(saved)


class GPUs:
    """Random states of some GPUs, in place of those of `torch.cuda`."""

    def __init__(self, monkeypatch, *states: int) -> None:
        self.states = [torch.tensor([state], dtype=torch.uint8) for state in states]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(self.states))
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: self.states[device.index or 0])
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.set_state)

    def set_state(self, state, device) -> None:
        self.states[torch.device(device).index or 0] = state


CUDA = torch.device("cuda")


def test_a_run_begun_beside_a_second_gpu_goes_on_with_one(monkeypatch):
    GPUs(monkeypatch, 7, 8)
    kept = checkpoint.capture_rng(CUDA)
    one = GPUs(monkeypatch, 1)
    checkpoint.restore_rng(kept, CUDA)
    assert [int(state) for state in one.states] == [7]


def test_a_state_from_before_that_holds_every_gpu_goes_on_with_one_or_none(monkeypatch):
    one = GPUs(monkeypatch, 1)
    kept = {"cpu": torch.get_rng_state(), "cuda": [torch.tensor([7]), torch.tensor([8])]}
    checkpoint.restore_rng(kept, CUDA)
    assert [int(state) for state in one.states] == [7]
    checkpoint.restore_rng(kept, torch.device("cpu"))


def test_a_run_on_the_cpu_keeps_its_random_numbers():
    kept = checkpoint.capture_rng(torch.device("cpu"))
    drawn = torch.rand(3)
    checkpoint.restore_rng(kept, torch.device("cpu"))
    assert torch.equal(torch.rand(3), drawn)


@pytest.fixture
def run(recipe, tmp_path):
    """A finished run, beside the file of its recipe."""
    (tmp_path / "tiny.toml").write_text(recipe.to_toml())
    run = Run(tmp_path / "run")
    assert main(["train", str(tmp_path / "tiny.toml"), "--run", str(run.path)]) == 0
    return run


def test_train_and_export_refuse_a_damaged_state(run, tmp_path, caplog):
    changed = bytearray(run.state_file.read_bytes())
    changed[len(changed) // 2] ^= 1
    run.state_file.write_bytes(changed)
    assert main(["train", str(tmp_path / "tiny.toml"), "--run", str(run.path)]) == EXIT_FAILED
    assert main(["export", str(run.path), "--to", str(tmp_path / "bundle")]) == EXIT_FAILED
    assert caplog.text.count("state.pt is damaged") == 2
    assert not (tmp_path / "bundle").exists()


def test_a_state_without_its_recipe_is_no_new_run(run, tmp_path, caplog):
    run.recipe_file.unlink()
    other = ["--set", "generator.base_channels=3"]
    assert main(["train", str(tmp_path / "tiny.toml"), "--run", str(run.path), *other]) == EXIT_FAILED
    assert "holds a state.pt and no recipe.toml" in caplog.text
    assert not run.recipe_file.exists()


def test_a_state_of_other_networks_is_refused_with_advice(run, recipe, caplog):
    run.recipe_file.write_text(recipe.to_toml().replace("base_channels = 2", "base_channels = 3"))
    assert main(["export", str(run.path), "--to", str(run.path.parent / "bundle")]) == EXIT_FAILED
    assert "the saved generator is not the one that the run's recipe builds today" in caplog.text


def test_a_full_disk_is_named_and_leaves_the_last_state(run):
    before = run.state_file.read_bytes()
    state = checkpoint.load(run.state_file)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, usual[1]))  # as near to a full disk as a test comes
    try:
        with pytest.raises(RunError, match=r"cannot save .*state\.pt: File too large; .* the same command goes on"):
            run.save_state(state, torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert run.state_file.read_bytes() == before
    assert not list(run.path.glob(".state.*"))


def test_what_a_process_that_was_killed_left_behind_is_deleted(recipe, tmp_path):
    run = Run(tmp_path / "run")
    with run.locked():
        run.create(recipe)
        left = run.path / ".state.1.pt"
        left.write_text("half")
    with run.locked():
        assert not left.exists()
        assert run.recipe() == recipe
