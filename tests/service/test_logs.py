"""What is set is the logging of a whole process, so each test has one of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# As BentoML does it: handlers on the root and on some loggers before the service is imported.
BEFORE = """
import logging, logging.config, sys, warnings
from bentoml._internal.log import configure_server_logging
configure_server_logging()
from service.logs import configure_logging
"""


def output(code):
    """What a process writes, line by line."""
    command = [sys.executable, "-c", BEFORE + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.splitlines()


def test_json_is_one_object_on_each_line():
    lines = output(
        """
configure_logging("json", "info")
logging.getLogger("service.telemetry").info("GET %s", "/a", extra={"request_id": "abc", "status": 200, "model": ""})
try:
    raise RuntimeError("several\\nlines")
except RuntimeError:
    logging.getLogger("service.problems").exception("request %s failed", "abc", extra={"request_id": "abc"})
logging.getLogger("uvicorn.error").error("broken", extra={"color_message": "\\x1b[31mbroken"})
logging.getLogger("bentoml").info("hosted \\ud800")
logging.getLogger("urllib3").info("not told")
warnings.warn("careful")
"""
    )
    access, failure, uvicorn, bentoml, warning = map(json.loads, lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", access.pop("time"))
    assert access == {
        "level": "INFO",
        "logger": "service.telemetry",
        "message": "GET /a",
        "request_id": "abc",
        "status": 200,
        "model": "",
    }
    assert failure["exception"].startswith("Traceback ")
    assert failure["exception"].endswith("RuntimeError: several\nlines")
    assert (failure["level"], failure["request_id"]) == ("ERROR", "abc")
    assert set(uvicorn) == {"time", "level", "logger", "message"}
    assert (bentoml["logger"], bentoml["message"]) == ("bentoml", "hosted \ud800")
    assert "careful" in warning["message"]


def test_text_is_that_of_the_host():
    (line,) = output(
        """
configure_logging("text", "info")
logging.getLogger("service.telemetry").info("GET /a", extra={"request_id": "abc"})
"""
    )
    assert re.fullmatch(r"\S+ \[INFO\] \[\] GET /a", line)


def test_a_line_that_cannot_be_written_keeps_no_other_back():
    lines = output(
        r"""
from service.logs import write_text
configure_logging("text", "info")
write_text()
logging.raiseExceptions = False
log = logging.getLogger("service.telemetry")
log.info("%d pictures", "no number")
log.info("half a character: \udcff")
log.warning("the last")
"""
    )
    assert [line.rpartition(": ")[2] for line in lines] == [r"\udcff", "the last"]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_the_level_is_that_of_our_loggers(format_):
    lines = output(
        f"""
configure_logging("{format_}", "warning")
for name in ("service.telemetry", "bentoml"):
    logging.getLogger(name).info("%s informs", name)
    logging.getLogger(name).warning("%s warns", name)
"""
    )
    assert [re.search(r"[\w.]+ (informs|warns)", line)[0] for line in lines] == [
        "service.telemetry warns",
        "bentoml informs",
        "bentoml warns",
    ]


def test_a_pipe_that_nobody_reads_stops_nobody():
    code = """
import logging, os, sys
from service.logs import write_text
write_text()
for _ in range(30_000):
    logging.getLogger("service").warning("x" * 100)
print("done", file=sys.stderr, flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr.readline() == b"done\n"  # and nothing has been read from it
        process.stdin.write(b"\n")
        process.stdin.close()
        lines = process.stdout.read().splitlines()
    assert 10_000 <= len(lines) < 30_000
    assert any(b"lines were dropped" in line for line in lines)
