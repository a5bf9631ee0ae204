"""`python -m service serve`: the service under uvicorn, which starts the worker, watches it, and starts it again.

The worker is the BentoML service of `api.py`; this process stays light and imports neither it nor ONNX Runtime.
"""

import argparse
import os

import uvicorn
from uvicorn.supervisors import Multiprocess

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        "service.api:hosted",
        factory=True,
        host=host,
        port=port,
        workers=1,  # replicas scale; a second worker would be a second copy of every bundle
        log_config=None,
        access_log=False,
        server_header=False,
    )
    Multiprocess(config, sockets=[config.bind_socket()]).run()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="serve the bundles")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=3000)
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port)


if __name__ == "__main__":
    main()
