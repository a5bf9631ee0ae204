"""The commands as a person types them, on data that fit into a second."""

import os

import pytest

from service.manifest import Manifest
from training import judge as judge_module
from training.__main__ import EXIT_FAILED, RECIPES, REGISTRIES, main
from training.datasets import DATASETS
from training.recipe import parse_recipe
from training.run import Run


@pytest.fixture
def recipe_file(recipe, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(recipe.to_toml())
    return path


def test_from_recipe_to_bundle(recipe_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(judge_module, "BATCH", 8)
    run, bundle = str(tmp_path / "run"), str(tmp_path / "models" / "tiny")
    assert main(["train", str(recipe_file), "--run", run]) == 0
    assert main(["evaluate", run, "--judged", "40", "--learnt-from", "40"]) == 0
    measured = capsys.readouterr().out
    assert "| `fd[judge@" in measured
    assert main(["export", run, "--to", bundle]) == 0
    assert "batch   7: at most" in capsys.readouterr().out
    manifest = Manifest.read(tmp_path / "models" / "tiny")
    assert any(name.startswith("cas[judge@") for name in manifest.metrics)
    assert {"judge.onnx", "progress.webp"} <= manifest.sha256.keys()
    assert manifest.training is not None
    assert manifest.training.nimg == 240
    assert manifest.training.seconds > 0
    assert len(manifest.training.devices) == 1
    assert main(["evaluate", bundle, "--judged", "40", "--learnt-from", "40"]) == 0
    assert capsys.readouterr().out == measured


def test_dry_run_prints_the_resolved_recipe_and_does_nothing(recipe_file, recipe, tmp_path, capsys):
    assert main(["train", str(recipe_file), "--run", str(tmp_path / "run"), "--dry-run"]) == 0
    assert capsys.readouterr().out == recipe.to_toml()
    assert not (tmp_path / "run").exists()


def test_hours_fit_the_schedule_and_are_kept_on_resume(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr("training.loop.SPEED_TEST_SECONDS", 0.3)
    command = ["train", str(recipe_file), "--run", str(tmp_path / "run"), "--hours", "0.0003"]
    assert main(command) == 0
    length = Run(tmp_path / "run").recipe().schedule.total_kimg
    assert length != 0.24
    assert main(command) == 0
    assert Run(tmp_path / "run").recipe().schedule.total_kimg == length


def test_a_finished_run_is_lengthened_in_its_own_recipe(recipe_file, tmp_path):
    run = Run(tmp_path / "run")
    command = ["train", str(recipe_file), "--run", str(run.path)]
    assert main(command) == 0
    run.create(run.recipe().lasting(0.32))
    assert main(command) == 0
    assert run.sheets()[-1].stem == "0000000320"


def test_what_fails_can_be_said_when_training_is_over(recipe_file, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "models" / "tiny"
    assert main(["train", str(recipe_file), "--run", str(run)]) == 0
    before = Run(run).state_file.read_bytes()
    words = "It knows two classes.", "Nothing in it is larger than 8 pixels."
    recipe_file.write_text(f"limitations = {list(words)}\n" + recipe_file.read_text().replace("limitations = []\n", ""))
    assert main(["train", str(recipe_file), "--run", str(run)]) == 0
    assert Run(run).state_file.read_bytes() == before
    assert main(["export", str(run), "--to", str(bundle)]) == 0
    manifest = Manifest.read(bundle)
    assert manifest.limitations == words
    assert manifest.recipe["limitations"] == list(words)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["train", "absent.toml"], "cannot read absent.toml"),
        (["export", "absent", "--to", "models/x"], "absent holds no run"),
        (
            ["evaluate", "absent"],
            "absent holds neither a run, with its recipe.toml, nor a bundle, with its manifest.json",
        ),
        (
            ["data", "fashion"],
            f"unknown data set 'fashion'; available: {', '.join(sorted(DATASETS))}",
        ),
        (["data", "image-folder"], "has settings; name the recipe"),
    ],
)
def test_mistakes_end_with_a_sentence_and_a_code(command, complaint, caplog):
    assert main(command) == EXIT_FAILED
    assert complaint in caplog.text


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "soon"])
def test_hours_that_are_none_are_refused(recipe_file, hours, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", str(recipe_file), "--hours", hours])
    assert f"'{hours}' is not a positive number of hours" in capsys.readouterr().err


def test_data_of_which_nothing_is_held_out_are_brought(tables, tmp_path, capsys):
    tables["data"]["held_out"] = 0
    (tmp_path / "tiny.toml").write_text(parse_recipe(tables, "the recipe").to_toml())
    assert main(["data", str(tmp_path / "tiny.toml")]) == 0
    said = capsys.readouterr().out
    assert "training: 120 pictures" in said
    assert "held out: nothing (" in said
    assert "held_out is 0.0)" in said


def test_networks_that_cannot_be_built_leave_no_run_behind(recipe_file, tmp_path, caplog):
    command = ["train", str(recipe_file), "--run", str(tmp_path / "run")]
    assert main([*command, "--set", "data.size=9"]) == EXIT_FAILED
    assert "9" in caplog.text
    assert not Run(tmp_path / "run").exists()
    assert main(command) == 0


def test_a_batch_that_the_data_cannot_fill_is_refused_before_anything_is_written(recipe_file, recipe, tmp_path, caplog):
    count = len(recipe.data.load("train"))
    command = ["train", str(recipe_file), "--run", str(tmp_path / "run"), "--set", "schedule.total_kimg=1"]
    assert main([*command, "--set", f"schedule.batch_size={count + 1}"]) == EXIT_FAILED
    said = f"{count} training items cannot fill batches of {count + 1}; schedule.batch_size: at most {count}"
    assert said in caplog.text
    assert not Run(tmp_path / "run").exists()


def test_hours_that_are_few_are_one_step(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr("training.loop.SPEED_TEST_SECONDS", 0.1)
    assert main(["train", str(recipe_file), "--run", str(tmp_path / "run"), "--hours", "1e-12"]) == 0
    assert [int(sheet.stem) for sheet in Run(tmp_path / "run").sheets()] == [0, 8]


def test_a_direction_that_there_is_not_is_refused_before_anything_is_measured(recipe_file, tmp_path, caplog):
    run = str(tmp_path / "run")
    assert main(["train", str(recipe_file), "--run", run]) == 0
    assert main(["evaluate", run, "--direction", "ab"]) == EXIT_FAILED
    assert "one generator and no direction; leave --direction out" in caplog.text


def test_a_run_that_cannot_be_where_it_is_asked_for(recipe_file, tmp_path, caplog):
    assert main(["train", str(recipe_file), "--run", str(recipe_file)]) == EXIT_FAILED
    assert "cannot make the directory" in caplog.text


def test_a_full_disk_is_said_to_be_one(recipe_file, tmp_path, caplog):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    (run.path / f".recipe.{os.getpid()}.toml").symlink_to("/dev/full")
    assert main(["train", str(recipe_file), "--run", str(run.path)]) == EXIT_FAILED
    assert "the disk is full: make room" in caplog.text


def test_a_run_of_another_recipe_is_left_alone(recipe_file, tmp_path, caplog):
    caplog.set_level("INFO")
    run = str(tmp_path / "run")
    assert main(["train", str(recipe_file), "--run", run]) == 0
    assert f"python -m training evaluate {run}" in caplog.text
    assert f"python -m training export {run} --to models/run" in caplog.text
    assert main(["train", str(recipe_file), "--run", run, "--set", "name=other"]) == EXIT_FAILED
    assert "is a run of the recipe 'tiny', not of 'other'" in caplog.text


def test_list_shows_every_choice(capsys):
    assert main(["list"]) == 0
    shown = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    choices = {**REGISTRIES, "recipe": [path.stem for path in RECIPES.glob("*.toml")]}
    assert {kind: set(names.split(", ")) for kind, names in shown.items()} == {
        kind: set(names) for kind, names in choices.items()
    }
