"""Log lines: as whoever hosts the service writes them, or as JSON, one object on each line."""

import logging.config
import logging.handlers
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from service.settings import LogFormat, LogLevel

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
GATHER_SECONDS = 0.25
GATHER_LINES = 1000
END_SECONDS = 5.0
"""That the end of the process waits for the lines that are being written."""
MOST_LINES = 10_000
"""That wait for whoever reads them; what comes after these is counted."""


class Gathered(logging.handlers.BufferingHandler):
    """Lines to stdout, those of a moment in one write; warnings and worse at once, with all that came before.

    A thread writes. Each write lets go of Python's lock, which the event loop then has to win back from threads that
    compute; and one to a pipe that nobody reads never ends.
    """

    def __init__(self) -> None:
        super().__init__(GATHER_LINES)
        self._wanted = threading.Event()
        self._dropped = 0
        self._gathering = threading.Lock()  # not the handler's own, which the end of the process holds while it waits
        self._writing = threading.Lock()
        threading.Thread(target=self._flush_for_ever, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        with self._gathering:
            if len(self.buffer) >= MOST_LINES:
                self._dropped += 1
                return
            self.buffer.append(record)
        if record.levelno >= logging.WARNING or len(self.buffer) >= self.capacity:
            self._wanted.set()

    def flush(self) -> None:
        if not self._writing.acquire(timeout=END_SECONDS):
            return  # the thread is at it, and nobody reads; the process may end all the same
        try:
            self._write()
        finally:
            self._writing.release()

    def _write(self) -> None:
        with self._gathering:
            records, self.buffer = self.buffer, []
            dropped, self._dropped = self._dropped, 0
        if dropped:
            message = f"{dropped} lines were dropped: nobody read those before them"
            records.append(logging.LogRecord(__name__, logging.ERROR, __file__, 0, message, None, None))
        if lines := "".join([self._line(record) for record in records]):
            with suppress(OSError):  # a full disk is no reason to stop serving
                sys.stdout.write(lines)
                sys.stdout.flush()

    def _line(self, record: logging.LogRecord) -> str:
        """Nothing if it cannot be formatted; that must keep no other line back, and harm nobody who logs."""
        try:
            return f"{self.format(record)}\n".encode(errors="backslashreplace").decode()
        except Exception:
            self.handleError(record)
            return ""

    def _flush_for_ever(self) -> None:
        while True:
            self._wanted.wait(GATHER_SECONDS)
            self._wanted.clear()
            self.flush()


class JsonLines(JsonFormatter):
    """Members `time` (RFC 3339, UTC), `level`, `logger`, `message`, those of `extra`, and `exception`: a traceback."""

    def __init__(self) -> None:
        super().__init__(
            ("asctime", "levelname", "name", "message"),
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"},
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's message again, for terminals
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return time.replace("+00:00", "Z")


@cache  # `server.py` does it before BentoML is imported, `api.py` for `bentoml serve`: a second handler would stay
def configure_logging(format_: LogFormat, level: LogLevel) -> None:
    """Set the level of the service's loggers; with `json`, write every line of the process as JSON to stdout.

    BentoML sets up logging before it imports the service, so what is set here stays. Its loggers and uvicorn's lose
    their handlers, for a stream in which some lines are JSON is one that nothing can read.
    """
    logging.getLogger("service").setLevel(level.upper())
    # No line of ours says which file, thread or process it is from, and looking that up is half of what a line costs
    # (the optimisation section of Python's logging HOWTO).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if format_ == "text":
        return
    hosts = ("bentoml", "circus", "uvicorn", "uvicorn.error")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonLines}},
            "handlers": {"stdout": {"()": Gathered, "formatter": "json"}},
            "root": {"level": "WARNING", "handlers": ["stdout"]},
            "loggers": {name: {"handlers": [], "propagate": True} for name in hosts},
        }
    )
    logging.captureWarnings(True)


def write_text() -> None:
    """Write every line of the process as text to stdout, where nobody else does: under `python -m service serve`."""
    handler = Gathered()
    handler.setFormatter(logging.Formatter(TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
