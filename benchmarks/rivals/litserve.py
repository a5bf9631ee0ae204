"""LitServe with batching: a worker and an API process for each CPU, and its faster queue."""

import os
from typing import Any

import litserve
from starlette.responses import Response

from benchmarks.pictures import MAX_BATCH, PORT_VARIABLE, Pictures
from service.cpus import available_cpus


class Generator(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.pictures = Pictures.from_environment()

    def decode_request(self, request: dict[str, int]) -> tuple[int, int]:
        return request["seed"], request["class"]

    def batch(self, inputs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return inputs  # the default would stack them, and a float holds no 64-bit seed

    def predict(self, asks: list[tuple[int, int]]) -> list[bytes]:
        return self.pictures.png([seed for seed, _ in asks], [label for _, label in asks])

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Any:
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    litserve.LitServer(
        Generator(max_batch_size=MAX_BATCH, batch_timeout=0.001, api_path="/generate"),
        accelerator="cpu",
        workers_per_device=available_cpus(),
        fast_queue=True,
    ).run(
        host="127.0.0.1",
        port=int(os.environ[PORT_VARIABLE]),
        num_api_servers=available_cpus(),
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )
