"""`bentofile.yaml` says what a Bento holds. Building one is `bentoml build`; here is what it must agree with."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BENTOFILE = yaml.safe_load((ROOT / "bentofile.yaml").read_text())


def test_installs_what_pyproject_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = project["dependencies"] + project["optional-dependencies"]["cpu"]
    assert sorted(BENTOFILE["python"]["packages"]) == sorted(expected)


def test_packs_the_service_and_the_bundles_only():
    assert {pattern.lstrip("/").split("/")[0] for pattern in BENTOFILE["include"]} == {"service", "models", "LICENSE"}
