"""The commands as a person types them, on data that fit into a second."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.manifest import Manifest
from training import judge as judge_module
from training.__main__ import EXIT_FAILED, EXIT_STOPPED, RECIPES, REGISTRIES, main
from training.datasets import DATASETS
from training.recipe import parse_recipe
from training.run import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe_file(recipe, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(recipe.to_toml())
    return path


def test_from_recipe_to_bundle(recipe_file, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(judge_module, "BATCH", 8)
    caplog.set_level("INFO")
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
    (said,) = [record.message for record in caplog.records if "training the judge" in record.message]
    assert "(once; it is kept in " in said


def test_dry_run_prints_the_resolved_recipe_and_does_nothing(recipe_file, recipe, tmp_path, capsys):
    assert main(["train", str(recipe_file), "--run", str(tmp_path / "run"), "--dry-run"]) == 0
    assert capsys.readouterr().out == recipe.to_toml()
    assert not (tmp_path / "run").exists()


def test_a_shipped_recipe_goes_by_its_name(capsys):
    assert main(["train", "flat-to-3d", "--dry-run"]) == 0
    by_name = capsys.readouterr().out
    assert main(["train", str(RECIPES / "flat-to-3d.toml"), "--dry-run"]) == 0
    assert capsys.readouterr().out == by_name


def test_a_directory_that_was_there_stays_there(recipe_file, tmp_path):
    (tmp_path / "run").mkdir()
    assert main(["train", str(recipe_file), "--run", str(tmp_path / "run"), "--set", "data.size=9"]) == EXIT_FAILED
    assert (tmp_path / "run").is_dir()


def test_a_file_that_is_left_out_is_told_once(recipe_file, tables, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(judge_module, "BATCH", 8)
    shutil.copytree(tables["data"]["path"], tmp_path / "pictures")
    for number in range(5):
        (tmp_path / "pictures" / "left" / f"broken-{number}.png").write_bytes(b"PNG")
    run, folder = str(tmp_path / "run"), f"data.path={tmp_path / 'pictures'}"
    assert main(["train", str(recipe_file), "--run", run, "--set", folder]) == 0
    caplog.clear()
    assert main(["evaluate", run, "--judged", "40", "--learnt-from", "40"]) == 0
    left_out = [record.message for record in caplog.records if "left out" in record.message]
    assert sum("broken-" in message for message in left_out) == 5
    assert len(left_out) == len(set(left_out))


def test_the_recipe_for_pictures_of_your_own_trains(pictures, tmp_path, monkeypatch, capsys):
    """As the page has it, with the shipped recipe's rest."""
    page = (ROOT / "docs/training.md").read_text().split("## Pictures of your own")[1]
    begin = re.search(r"```toml\n(.*?)\n# \[schedule\] and all that follows.*?```", page, re.DOTALL)
    assert begin is not None
    _, schedule, rest = (RECIPES / "fashion.toml").read_text().partition("[schedule]")
    (tmp_path / "pictures.toml").write_text(begin[1] + schedule + rest)
    (tmp_path / "pictures").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "pictures.toml"]) == 0
    assert "pictures of the classes above, left" in capsys.readouterr().out
    assert main(["train", "pictures.toml", "--set", "schedule.total_kimg=0.064"]) == 0
    assert Run(tmp_path / "runs" / "pictures").state_file.exists()


HEARS_SIGINT = (  # also where these tests run in the background of a shell, which has it ignored
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def test_ctrl_c_ends_it_while_it_imports(tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)")
    command = [sys.executable, "-c", HEARS_SIGINT, "-m", "training", "list"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (EXIT_STOPPED, "")


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
        (["train", "fashoin"], "unknown recipe 'fashoin'; available: edges-to-emoji, emoji-cycle, fashion, flat-to-3d"),
        (["export", "absent", "--to", "models/x"], "absent holds no run"),
        (
            ["evaluate", "absent"],
            "absent holds neither a run, with its recipe.toml, nor a bundle, with its manifest.json",
        ),
        (
            ["data", "fashoin"],
            f"unknown data set 'fashoin'; available: {', '.join(sorted(DATASETS))}",
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
    assert not (tmp_path / "run").exists()
    assert main(command) == 0


def test_a_batch_that_the_data_cannot_fill_is_refused_before_anything_is_written(recipe_file, recipe, tmp_path, caplog):
    count = len(recipe.data.load("train"))
    command = ["train", str(recipe_file), "--run", str(tmp_path / "run"), "--set", "schedule.total_kimg=1"]
    assert main([*command, "--set", f"schedule.batch_size={count + 1}"]) == EXIT_FAILED
    said = f"{count} training items cannot fill batches of {count + 1}; schedule.batch_size: at most {count}"
    assert said in caplog.text
    assert not (tmp_path / "run").exists()


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


def test_a_cache_that_cannot_be_where_it_is_asked_for(recipe_file, monkeypatch, caplog):
    monkeypatch.setenv("GANERY_CACHE", str(recipe_file))
    assert main(["data", "emoji"]) == EXIT_FAILED
    assert f"cannot use {recipe_file / 'packages'}: Not a directory" in caplog.text


def test_a_bundle_that_cannot_be_where_it_is_asked_for_is_refused_before_anything_is_loaded(
    recipe_file, recipe, tmp_path, monkeypatch, caplog
):
    Run(tmp_path / "run").create(recipe)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "run", "--to", "tiny.toml/deeper/name"]) == EXIT_FAILED
    assert "cannot write in tiny.toml/deeper: Not a directory; name another place" in caplog.text
    assert main(["export", "run", "--to", "models/new"]) == EXIT_FAILED
    assert "has not saved anything yet" in caplog.text
    assert main(["export", "absent", "--to", "elsewhere/new"]) == EXIT_FAILED
    assert not (tmp_path / "elsewhere").exists()


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
