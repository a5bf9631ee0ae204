"""How `python -m service serve` begins: where it listens, and why it does not."""

import os
import socket
import subprocess
import sys

import pytest
from server_process import serving

from service.__main__ import main


def test_an_address_that_is_taken_or_is_none_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "service", "serve", "--port"]
        ran = [
            subprocess.run([*command, each], capture_output=True, text=True, check=False)
            for each in (port, "99999", "abc", "-1")
        ]
    assert all(each.returncode != 0 for each in ran)
    assert f"127.0.0.1:{port} cannot be listened on" in ran[0].stderr
    assert "(make serve: HOST= and PORT=)" in ran[0].stderr
    for each, typed in zip(ran[1:], ("99999", "abc", "-1"), strict=True):
        assert f"--port: {typed} is not a whole number from 0 to 65535" in each.stderr
    assert "Traceback" not in "".join(each.stderr for each in ran)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_it_says_where_it_listens(plain, tmp_path, log_format):
    with serving(tmp_path, plain.parent, SERVICE_PROCESSES="0", SERVICE_LOG_FORMAT=log_format) as server:
        server.wait_for('"ready"')
        server.stop()
        assert server.log.read_text().count(f"listens on http://127.0.0.1:{server.port}") == 1


def test_the_time_for_answers_that_have_begun_is_never_negative(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["service", "serve", "--grace-seconds", "-1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--grace-seconds: -1 is not a whole number of 0 or more" in capsys.readouterr().err


def test_a_worker_that_fails_before_it_has_ever_served_ends_the_server_and_says_why(tmp_path):
    (tmp_path / "bentoml.yaml").write_text("version: 1\nnonsense: 1\n")
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
    environment = {**os.environ, "BENTOML_CONFIG": str(tmp_path / "bentoml.yaml")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    assert "nonsense" in ran.stderr
