"""`python -m service serve`: a worker that hosts the service, and a supervisor that starts it again when it dies.

The supervisor is uvicorn's. It stays light: it imports neither BentoML nor the service, which start in the worker.
"""

import os
import sys
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

BACKLOG = 2048


class Supervisor(Multiprocess):
    """Keeps one worker alive; SIGTERM and SIGINT are passed on to it, SIGHUP replaces it without a gap."""

    def terminate_all(self) -> None:
        """Let the worker finish. Once it has stopped listening, nobody is: connections are refused, and do not hang."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()


def serve(host: str, port: int, *, grace_seconds: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    config = uvicorn.Config(
        "service.server:worker",
        factory=True,
        host=host,
        port=port,
        backlog=BACKLOG,
        workers=1,  # replicas scale; a second worker would be a second queue and a second copy of every bundle
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_seconds,
    )
    supervisor = Supervisor(config, sockets=[config.bind_socket()])
    supervisor.run()
    sys.exit(1 if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes) else 0)


def worker() -> Any:
    """The ASGI application; in the worker only."""
    try:
        from service.settings import Settings  # noqa: PLC0415
        from service.trial import start_early  # noqa: PLC0415

        if Settings.from_environment().trial_seconds:
            start_early()  # before BentoML, whose import takes longest
        from service.api import hosted  # noqa: PLC0415

        return hosted()
    except SystemExit as error:  # a setting is wrong, and would be wrong again
        print(error, file=sys.stderr)
        sys.exit(STARTUP_FAILURE)
