from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, stray_variables


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SERVICE_{name.upper()}", raising=False)


def test_defaults_suit_a_laptop():
    settings = Settings.from_environment()
    assert settings.models_dir == Path("models")
    assert settings.provider == "auto"
    assert settings.default_model is None


def test_reads_the_environment(monkeypatch):
    monkeypatch.setenv("SERVICE_DEADLINE_SECONDS", "2.5")
    assert Settings.from_environment().deadline_seconds == 2.5


def test_one_line_for_each_bad_value(monkeypatch):
    monkeypatch.setenv("SERVICE_PROVIDER", "gpu")
    monkeypatch.setenv("SERVICE_DEADLINE_SECONDS", "soon")
    with pytest.raises(SystemExit) as error:
        Settings.from_environment()
    provider, deadline = sorted(str(error.value).splitlines(), reverse=True)
    assert provider == "SERVICE_PROVIDER='gpu' is not usable: Input should be 'auto', 'cpu' or 'cuda'"
    assert deadline.startswith("SERVICE_DEADLINE_SECONDS='soon' is not usable: ")


def test_a_misspelt_variable_is_told(monkeypatch):
    assert stray_variables() == []
    for name in (
        "SERVICE_API_KEY_FILE",
        "SERVICE_X",
        "SERVICE_SERVICE_HOST",
        "SERVICE_PORT_80_TCP",
        "SERVICE_PROVIDER",
    ):
        monkeypatch.setenv(name, "cpu")
    assert stray_variables() == [
        "SERVICE_API_KEY_FILE is not a setting; is it SERVICE_API_KEYS_FILE?",
        "SERVICE_X is not a setting; nothing reads it",
    ]


def test_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().provider = "cpu"
