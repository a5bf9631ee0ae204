"""`python -m service serve`: a worker that hosts the service, and a supervisor that starts it again when it dies.

The supervisor is uvicorn's. It stays light: it imports neither BentoML nor the service, which start in the worker.
"""

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from functools import cache
from multiprocessing import parent_process
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from service.listening import Server

if TYPE_CHECKING:  # see `_settings`
    from service.settings import Settings

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep an idle connection: it is they who close it, not we while they send a request."""
PING_EVERY = 1
PING_SECONDS = 30
"""A worker that does not answer its supervisor for so long is killed; a busy machine may take a while to start one."""
STOP_SECONDS = 15
"""Most time that a worker may take to stop, besides its grace."""
LOAD_SECONDS = 600
"""Most time that a replacement may take to load its bundles."""


class Worker(Process):
    """The process that runs our `Server`."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(config=self.config)
        return self._server


class Supervisor(Multiprocess):
    """Keeps one worker alive; SIGTERM and SIGINT are passed on to it, SIGHUP replaces it without a gap."""

    _heard = 0.0
    """When the worker last answered, or was started."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._retiring: dict[Process, float] = {}
        """Workers that finish what they have begun, and until when they may."""
        self._served = False
        """Whether any worker has; one that fails before would fail again."""

    def keep_subprocess_alive(self) -> None:
        """Replace the worker: at once if it is dead, after `PING_SECONDS` if it is silent.

        uvicorn waits for the answer of a worker that has died meanwhile.
        """
        if self.should_exit.is_set():
            return
        self._bury_orphans()
        for retiring, until in list(self._retiring.items()):
            if not retiring.process.is_alive() or monotonic() > until:
                self._end(retiring)
        (worker,) = self.processes
        if worker.is_alive(timeout=PING_EVERY):
            self._heard = monotonic()
            self._served = self._served or worker.is_ready(timeout=PING_EVERY)
        elif not worker.process.is_alive() or monotonic() - self._heard > PING_SECONDS:
            worker.kill()
            worker.join()
            code = worker.exitcode or 0
            if code == STARTUP_FAILURE or (code > 0 and not self._served):  # it has said why, and would fail again
                self.should_exit.set()
                return
            _log("the worker [%s] has ended; another is started", worker.pid)
            self.init_processes()

    def init_processes(self) -> None:
        self.processes = [self._started()]
        self._heard = monotonic()

    def _started(self) -> Worker:
        worker = Worker(self.config, self.sockets)
        worker.start()
        return worker

    def restart_all(self) -> None:
        """Start a worker that listens once it has loaded its bundles; only then does the old one stop.

        If the new one has nothing to serve, the old one stays.
        """
        (old,) = self.processes
        self.config.app = "service.server:replacement"
        new = self._started()
        self.config.app = "service.server:worker"
        deadline = monotonic() + LOAD_SECONDS
        while not new.wait_until_ready(timeout=1):
            stopping = signal.SIGTERM in self.signal_queue or signal.SIGINT in self.signal_queue
            if stopping or not new.process.is_alive() or monotonic() > deadline:
                new.kill()
                new.join()
                _log("the new worker [%s] serves nothing; the old one [%s] stays", new.pid, old.pid)
                return
        if old.exitcode is None:
            assert old.pid is not None
            # Not SIGTERM: it would fail /readyz and wait for load balancers, which have nothing to notice here.
            os.kill(old.pid, signal.SIGINT)
        # Nobody waits for it here: signals are heard, and the new one is looked after.
        _log("the new worker [%s] serves; the old one [%s] retires", new.pid, old.pid, level=logging.INFO)
        self._retiring[old] = monotonic() + (self.config.timeout_graceful_shutdown or 0) + STOP_SECONDS
        self.processes = [new]
        self._heard = monotonic()

    def join_all(self) -> None:
        super().join_all()
        for retiring, until in list(self._retiring.items()):
            retiring.process.join(max(0.0, until - monotonic()))
            self._end(retiring)

    def _bury_orphans(self) -> None:
        """In a container the supervisor is process 1, and so becomes the parent of what a killed worker leaves."""
        if sys.platform != "linux":
            return
        ours = {worker.pid for worker in (*self.processes, *self._retiring)}
        with suppress(ChildProcessError):  # none at all
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in ours:
                os.waitpid(ended.si_pid, 0)

    def _end(self, retiring: Process) -> None:
        retiring.kill()
        retiring.join()
        del self._retiring[retiring]

    def handle_ttin(self) -> None:
        """uvicorn would start one worker more. There is one, whatever comes."""

    handle_ttou = handle_ttin

    def terminate_all(self) -> None:
        """Let the worker finish. Once it has stopped listening, nobody is: connections are refused, and do not hang."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()


def serve(host: str, port: int, *, grace_seconds: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    # With a heap for each thread, as glibc has it, what long answers leave free in one is not found from another: under
    # mixed load the worker grew by 1.25 MB a minute, all of it free. For the worker and the processes that compute.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    config = uvicorn.Config(
        "service.server:worker",
        factory=True,
        host=host,
        port=port,
        backlog=BACKLOG,
        workers=1,  # replicas scale; a second worker would be a second queue and a second copy of every bundle
        log_config=None,
        access_log=False,
        http="service.connection:Connection",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
        timeout_worker_healthcheck=PING_EVERY,
    )
    try:
        listener = config.bind_socket()
    except SystemExit:  # uvicorn has said why, and not where
        options = "--host and --port (make serve: HOST= and PORT=)"
        sys.exit(f"{host}:{port} cannot be listened on; {options} choose another address")
    supervisor = Supervisor(config, sockets=[listener])
    supervisor.run()
    sys.exit(1 if any((process.exitcode or 0) > 0 for process in supervisor.processes) else 0)


def _log(message: str, *args: object, level: int = logging.ERROR) -> None:
    """A line, as the settings say that lines look."""
    _settings()
    logging.getLogger(__name__).log(level, message, *args)


@cache
def _settings() -> "Settings":
    """The settings, with logging set up as they say; in the supervisor, which imports little, once it has to speak."""
    from service.settings import Settings  # noqa: PLC0415

    settings = Settings.from_environment()
    from service.logs import configure_logging, write_text  # noqa: PLC0415

    configure_logging(settings.log_format, settings.log_level)
    if settings.log_format == "text":
        write_text()
    return settings


def worker(*, when_loaded: bool = False) -> Any:
    """The ASGI application; in the worker only."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends it to all; it is the supervisor's, which reloads
    Thread(target=_stop_with_supervisor, daemon=True).start()
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # a full disk, or one to read only: BentoML wants a directory, and never writes into it
        tempfile.tempdir = "/dev/shm"
    gc.disable()  # until the bundles are loaded: imports leave no garbage, and a tenth of their time goes to the search
    try:
        # Imports are most of a start, BentoML's above all: processes and bundles get ready beside them.
        from service.process import start_early  # noqa: PLC0415

        start_early()
        settings = _settings()
        from service.lifecycle import of_this_process  # noqa: PLC0415

        of_this_process().begin()
        from service.api import hosted  # noqa: PLC0415
        from service.connection import Connection  # noqa: PLC0415
    except SystemExit as error:  # a setting is wrong, and would be wrong again
        print(error, file=sys.stderr)
        sys.exit(STARTUP_FAILURE)
    Connection.unread_seconds = settings.send_seconds
    host = hosted(when_loaded=when_loaded)
    gc.collect()  # what imports have left; the last bundles are being opened meanwhile
    return host


def replacement() -> Any:
    """The same, for a worker that takes over from another."""
    return worker(when_loaded=True)


def _stop_with_supervisor() -> None:
    """Stop when the supervisor has been killed: nobody could stop this worker, and it would keep the port."""
    supervisor = parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)
