import os
import subprocess
import sys

import pytest

from service.catalog import Catalog
from service.doctor import examine
from service.settings import Settings


@pytest.fixture
def report(plain):
    """What the doctor says of a directory with one good bundle, as one text."""

    def examined(**settings):
        return "\n".join(examine(Settings(models_dir=plain.parent, provider="cpu", processes=0, **settings)))

    return examined


def test_it_says_what_would_be_served_and_how_fast(report):
    said = report()
    assert "plain 1: generate, 8x8x3" in said
    assert "pictures/s one by one" in said
    assert "requests that name no model get plain (generate)" in said
    assert "PROBLEM" not in said


def test_it_refuses_what_the_service_would_refuse(report):
    said = report(max_bundle_bytes=10)
    assert "SERVICE_MAX_BUNDLE_BYTES=10" in said
    assert "plain: REFUSED: its files are" in said
    assert "more than the 10 of SERVICE_MAX_BUNDLE_BYTES" in said


def test_it_takes_what_the_service_would_take(report, monkeypatch):
    monkeypatch.setitem(Catalog.load.__func__.__kwdefaults__, "max_bytes", 10)
    assert "REFUSED" not in report()


def test_it_says_what_would_end_the_server_and_what_nobody_would_find(report, tmp_path, monkeypatch):
    monkeypatch.setattr("service.tracing.find_spec", lambda name: None)
    said = report(default_model="nobody", api_keys_file=tmp_path / "none", tracing="otlp")
    assert "PROBLEM: SERVICE_DEFAULT_MODEL=nobody is none of them" in said
    assert said.endswith("requests that name no model get a 404")
    assert "PROBLEM: SERVICE_API_KEYS_FILE names a file that cannot be read" in said
    assert "PROBLEM: SERVICE_TRACING=otlp needs the package" in said
    assert str(tmp_path / "none") not in said  # it may be a key by mistake


@pytest.mark.parametrize(("models", "status"), [("models", 0), ("nothing", 1)])
def test_its_exit_status_says_whether_all_is_well(plain, tmp_path, models, status):
    (tmp_path / "nothing").mkdir()
    environment = {
        **os.environ,
        "SERVICE_PROVIDER": "cpu",
        "SERVICE_PROCESSES": "0",
        "SERVICE_MODELS_DIR": str(plain.parent if models == "models" else tmp_path / "nothing"),
    }
    ran = subprocess.run([sys.executable, "-m", "service", "doctor"], env=environment, capture_output=True, check=False)
    assert ran.returncode == status
    assert b"deadline_seconds" in ran.stdout
