"""One process that computes, as the server sees it: started, asked, limited, ended.

Imports little, for it is imported first of all: the first process is started beside the server's own imports.
"""

import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from threading import Lock
from typing import Any

COMMAND = (sys.executable, "-P", "-m", "service.compute_process")


class ProcessEnded(Exception):
    """A process has ended instead of answering."""


class NeverBegun(ProcessEnded):
    """It had ended before it came to the request."""


class ProcessTooSlow(ProcessEnded):
    """It has been ended, because the time for the answer was over."""


class Process:
    """One process, and the connection to it."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        with theirs:
            self._popen = subprocess.Popen(
                (*COMMAND, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # whatever libraries print belongs nowhere
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        self.opened: set[str] = set()
        self._answers = Lock()
        self._ended = False

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def ending(self) -> str:
        """How it has ended, once it has been killed: the kernel's doing, a crash, or an import that failed."""
        status = self._popen.wait()
        return f"by signal {-status}" if status < 0 else f"with status {status}"

    def limit_sending(self, seconds: float) -> None:
        """Give it so long to read some of what it is sent; it may hang, and hold what does not fit into its socket."""
        with socket.socket(fileno=os.dup(self.connection.fileno())) as ours:
            microseconds = max(1, round(seconds * 10**6))  # 0 is without limit
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", *divmod(microseconds, 10**6)))

    def ask(
        self,
        request: "Callable[[Any, Any], Any]",
        seconds: float | None = None,
        announced: Callable[[], object] = lambda: None,
    ) -> Any:
        """The answer to a request, or the exception that it has raised there.

        Args:
            request: to be sent by one thread at a time, until the answer has come or been announced.
            seconds: in which it must say something; None is without limit.
            announced: is called if the process says that the answer comes soon; another thread may ask then.

        Raises:
            ProcessEnded: if it ends instead.
            NeverBegun: if it has ended before.
            ProcessTooSlow: if it says nothing in time; then it has been ended.
        """
        content = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
        try:
            self.connection.send_bytes(content)
        except Exception as error:
            self.kill()
            raise NeverBegun(self.ending) from error
        with self._answers:  # they come in order, and at most one other thread waits for an earlier one
            if self._ended:
                raise NeverBegun(self.ending)
            answer = self._answer(seconds, announced)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(self, seconds: float | None, announced: Callable[[], object]) -> Any:
        content = b""
        try:
            while in_time := seconds is None or self.connection.poll(seconds):
                if content := self.connection.recv_bytes():
                    break
                announced()
        except Exception as error:  # whatever it is: half an answer would be taken for the beginning of the next
            self.kill()
            raise ProcessEnded(self.ending) from error
        if not in_time:
            self.kill()
            raise ProcessTooSlow(self.ending)
        return pickle.loads(content)

    def kill(self) -> None:
        """End it; threads that wait for its answers notice."""
        self._ended = True
        self._popen.kill()
        self._popen.wait()


_started_early: list[Process] = []


def start_early() -> None:
    """Start a process now, for `taken_early`: its imports take as long as those of whoever calls.

    Those of `Settings` too, so the one that says whether there are to be processes is read without them.
    """
    with suppress(ValueError):
        if int(os.environ.get("SERVICE_PROCESSES") or 1) == 0:
            return
    with suppress(OSError):  # whoever needs it says so
        _started_early.append(Process())


def taken_early() -> list[Process]:
    """Those that have been started early; nobody else gets them."""
    taken = _started_early.copy()
    _started_early.clear()
    return taken
