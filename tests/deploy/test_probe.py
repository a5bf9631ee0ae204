"""Whether a machine that cannot run containers is told from one that can; engines are scripts that only say things."""

import subprocess

import pytest

from deploy import engine, image, probe


@pytest.fixture
def podman(tmp_path, monkeypatch):
    """Install a `podman` that runs a script, and nothing else that builds or runs images."""

    def install(script):
        path = tmp_path / "podman"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(engine, "BUILDERS", ("podman",))
    monkeypatch.setattr(engine, "RUNNERS", ("podman",))
    return install


def test_nothing_is_in_the_way(podman):
    podman("exit 0")
    assert probe.why_not() is None


@pytest.mark.parametrize(
    ("forbidden", "reason"),
    [
        ("build", "`podman build` ended with 125 and said: mount: Operation not permitted"),
        ("run", "`podman run` ended with 125 and said: mount: Operation not permitted"),
    ],
)
def test_what_the_engine_says_last_is_why(podman, forbidden, reason):
    podman(f'[ "$1" = {forbidden} ] || exit 0; echo STEP; echo "mount: Operation not permitted" >&2; exit 125')
    assert probe.why_not() == reason


def test_an_engine_that_hangs(podman, monkeypatch):
    monkeypatch.setattr(probe, "SECONDS", 0.2)
    podman('[ "$1" = run ] && exec sleep 60; exit 0')
    assert probe.why_not() == "`podman run` took more than 0.2 seconds"


def test_no_engine(podman):
    podman("exit 1")
    assert "none of podman works here" in probe.why_not()


@pytest.mark.parametrize("error", [FileNotFoundError("mmdebstrap"), subprocess.CalledProcessError(1, "mmdebstrap")])
def test_no_image_to_build_on(podman, monkeypatch, error):
    def base(builder):
        raise error

    podman("exit 0")
    monkeypatch.setattr(image, "base", base)
    assert "no Python image to build on" in probe.why_not()
    assert "mmdebstrap" in probe.why_not()
