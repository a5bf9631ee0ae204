"""Log lines: as whoever hosts the service writes them, or as JSON, one object on each line."""

import logging.config
from datetime import UTC, datetime

from pythonjsonlogger.json import RESERVED_ATTRS, JsonFormatter

from service.settings import LogFormat, LogLevel


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
            "handlers": {
                "stdout": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}
            },
            "root": {"level": "WARNING", "handlers": ["stdout"]},
            "loggers": {name: {"handlers": [], "propagate": True} for name in hosts},
        }
    )
    logging.captureWarnings(True)
