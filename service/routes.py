"""The public routes: parse, call, encode."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import ParamSpec, TypeVar

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from service.errors import NotFound
from service.formats import choose_format
from service.lifecycle import Lifecycle
from service.openapi import document
from service.parsing import parse
from service.schemas import GenerateRequest, ModelCard, ModelList, ModelSummary, Refusal, Status

P = ParamSpec("P")
T = TypeVar("T")

WEB = Path(__file__).parent / "web"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


async def generate(request: Request) -> Response:
    """One seed, one picture."""
    service = _lifecycle(request)
    ask = await parse(request, GenerateRequest, max_bytes=service.settings.max_body_bytes)
    format_ = choose_format(ask.format, ", ".join(request.headers.getlist("accept")) or "*/*")
    bundle = service.catalog.get(ask.model, task="generate")
    request.state.model = bundle.name
    sample = bundle.sample(seed=ask.seed, class_=ask.class_, truncation=ask.truncation)

    start = perf_counter()
    pixels = await _in_thread(bundle.picture, sample)
    made = perf_counter()
    content = await _in_thread(format_.encode, pixels, sample)
    encoded = perf_counter()

    service.metrics.generate_seconds.labels(bundle.name).observe(made - start)
    service.metrics.encode_seconds.labels(bundle.name).observe(encoded - made)
    return Response(
        content,
        media_type=format_.media_type,
        headers={
            "X-Seed": str(sample.seed),
            "X-Model": bundle.name,
            "X-Sample-Id": sample.id,
            "Server-Timing": f"generate;dur={(made - start) * 1000:.1f}, encode;dur={(encoded - made) * 1000:.1f}",
        },
    )


async def models(request: Request) -> Response:
    """What is served, and what was refused."""
    catalog = _lifecycle(request).catalog
    return _json(
        ModelList(
            default=catalog.default_for("generate"),
            models=[ModelSummary.of(bundle) for bundle in catalog.bundles.values()],
            refused=[Refusal(name=name, reason=reason) for name, reason in catalog.refused.items()],
        )
    )


async def model(request: Request) -> Response:
    """The card of one model."""
    bundle = _lifecycle(request).catalog.named(request.path_params["name"])
    request.state.model = bundle.name
    return _json(ModelCard.of(bundle))


async def samples(request: Request) -> Response:
    """The sheet of samples that came with a model."""
    bundle = _lifecycle(request).catalog.named(request.path_params["name"])
    request.state.model = bundle.name
    if bundle.samples_png is None:
        raise NotFound(f"model {bundle.name!r} came without samples.png")
    return Response(bundle.samples_png, media_type="image/png")


async def livez(request: Request) -> Response:
    """The process answers; nothing more."""
    return _json(Status(status="alive"))


async def readyz(request: Request) -> Response:
    """Whether requests should be sent here."""
    _lifecycle(request).check_ready()
    return _json(Status(status="ready"))


async def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(_lifecycle(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def openapi(request: Request) -> Response:
    """The contract."""
    return Response(await _in_thread(document), media_type="application/json")


def page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A route for a page in `web/`."""

    async def send(request: Request) -> Response:
        return FileResponse(WEB / name, headers=PAGE_HEADERS)

    return send


ROUTES: list[BaseRoute] = [
    Route("/generate", generate, methods=["POST"]),
    Route("/models", models),
    Route("/models/{name}", model),
    Route("/models/{name}/samples.png", samples),
    Route("/livez", livez),
    Route("/readyz", readyz),
    Route("/metrics", metrics),
    Route("/openapi.json", openapi),
    Route("/docs", page("docs.html")),
    Route("/", page("index.html")),
    Mount("/web", StaticFiles(directory=WEB)),
]


def _lifecycle(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread; past the deadline the thread is left to finish alone."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), abandon_on_cancel=True)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
