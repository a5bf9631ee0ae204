"""The public routes: parse, call, encode."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from anyio.to_thread import run_sync
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from service import __version__
from service.animations import ANIMATIONS
from service.archives import ARCHIVES, CONTAINERS, Container
from service.batcher import Done
from service.bundle import Bundle
from service.errors import InvalidValue, NotFound, TooLarge
from service.formats import FORMATS, Format, ToFile, choose
from service.forms import BodyLimits, read_pictures, safe_names
from service.interpolation import Interpolation
from service.lifecycle import Lifecycle
from service.manifest import Task
from service.openapi import document
from service.parsing import Schema, check, from_text, parse, read_body, refuse_encoded
from service.plan import Plan
from service.presence import while_connected
from service.sample import Address, Sample, Several
from service.schemas import (
    GenerateRequest,
    InterpolateRequest,
    ModelCard,
    ModelList,
    ModelSummary,
    Refusal,
    SampleRequest,
    Status,
    TranslateRequest,
    Verdict,
)
from service.streaming import Pieces, in_thread, stream
from service.tasks import TASKS
from service.translation import TimeLimit, Translation, seed_for, translations
from service.verification import open_case
from service.work import Work

T = TypeVar("T")

WEB = Path(__file__).parent / "web"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


async def generate(request: Request) -> Response:
    """One seed, one picture."""
    ask = await _parse(request, GenerateRequest)
    format_ = choose(FORMATS, ask.format, _accept(request))
    bundle = _bundle(request, ask.model)
    sample = bundle.sample(seed=ask.seed, class_=ask.class_, truncation=ask.truncation)
    return await _picture(request, bundle, sample, format_)


async def sample_again(request: Request) -> Response:
    """The sample of an id, again."""
    address = Address.parse(request.path_params["id"])
    format_ = choose(FORMATS, None, _accept(request))
    bundle = _lifecycle(request).catalog.of_digest(address.digest)
    request.state.model = bundle.name
    sample = bundle.sample(seed=address.seed, class_=address.label, truncation=address.truncation)
    # The id says all that the picture depends on; the encoder's build is the service's version.
    headers = {
        "ETag": f'"{sample.id}.{format_.extension}.{__version__}"',
        "Cache-Control": "public, max-age=31536000, immutable",
        "Vary": "Accept",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return await _picture(request, bundle, sample, format_, headers)


async def sample(request: Request) -> Response:
    """Many seeds, many pictures, in one stream."""
    service = _lifecycle(request)
    ask = await _parse(request, SampleRequest)
    kind = choose(ARCHIVES, ask.format, _accept(request))
    bundle = _bundle(request, ask.model)
    plan = Plan.of(
        bundle,
        seeds=ask.ranges(),
        first_seed=ask.seed,
        count=ask.count,
        classes=ask.classes,
        truncation=ask.truncation,
        max_count=service.settings.max_count,
    )
    archive = kind(plan, FORMATS[ask.picture], max_pixels=service.settings.max_pixels)
    pieces = Pieces(bundle.batcher, plan.works(archive.packing))
    name = f"{bundle.name}-{plan.seeds[0]}-{len(plan)}.{archive.extension}"
    return await stream(
        request,
        pieces,
        archive.write(pieces),
        media_type=archive.media_type,
        headers={
            "X-Seed": str(plan.seeds[0]),
            "X-Count": str(len(plan)),
            **_made_by(bundle),
            "Content-Disposition": f'attachment; filename="{name}"',
        },
    )


async def interpolate(request: Request) -> Response:
    """The way from sample to sample."""
    service = _lifecycle(request)
    ask = await _parse(request, InterpolateRequest)
    kind = choose(ANIMATIONS, ask.format, _accept(request))
    bundle = _bundle(request, ask.model)
    points = [bundle.sample(seed=point.seed, class_=point.class_) for point in ask.way()]
    way = Interpolation(bundle, points, ask.steps, ask.loop)
    origin = Several({"interpolation": [point.id for point in points], "steps": ask.steps, "loop": ask.loop})
    if way.pixels > service.settings.max_pixels:
        raise TooLarge(
            f"{len(way)} frames have {way.pixels} pixels; at most {service.settings.max_pixels} are made: "
            "ask for fewer points, or fewer steps"
        )
    pieces = Pieces(bundle.batcher, way.works())

    def file() -> bytes:
        return kind.encode(np.concatenate(list(pieces)), ask.milliseconds, origin)

    content = await in_thread(request, pieces, file)
    return Response(content, media_type=kind.media_type, headers={"X-Frames": str(len(way)), **_made_by(bundle)})


async def translate(request: Request) -> Response:
    """A picture, or several, through a network."""
    settings = _lifecycle(request).settings
    refuse_encoded(request)
    body = await read_body(request, max_bytes=settings.max_upload_bytes, seconds=settings.body_seconds)
    began = perf_counter()
    limits = BodyLimits(settings.max_uploads, settings.max_upload_bytes)
    content_type = request.headers.get("content-type", "")
    brought = await run_sync(read_pictures, body, content_type, limits, abandon_on_cancel=True)
    del body
    said = [*request.query_params.multi_items(), *brought.fields.items()]
    ask = check(from_text(said, numbers={"seed"}), TranslateRequest)
    container, file_format = _representation(ask, brought.several, _accept(request))
    bundle = _bundle(request, ask.model, task="translate")
    seed = seed_for(bundle, ask.seed)
    read = partial(translations, bundle, brought.pictures, seed=seed, file_format=file_format)
    time_limit = TimeLimit(request.state.deadline, settings.deadline_seconds)
    # At the deadline the thread is left behind: it ends at its next picture.
    pictures = await run_sync(
        partial(read, max_pixels=settings.max_pixels, time_limit=time_limit), abandon_on_cancel=True
    )
    headers = {**({} if seed is None else {"X-Seed": str(seed)}), **_made_by(bundle)}
    decode = perf_counter() - began
    if container is None:
        return await _translated(request, pictures[0], headers, decode)
    names = safe_names((picture.name for picture in brought.pictures), file_format.extension)
    pieces = Pieces(bundle.batcher, chain.from_iterable(picture.works() for picture in pictures))
    files = ((name, picture.file(pieces)) for name, picture in zip(names, pictures, strict=True))
    headers |= {
        "X-Count": str(len(pictures)),
        "Content-Disposition": f'attachment; filename="{bundle.name}.{container.extension}"',
    }
    return await stream(request, pieces, container.write(files), media_type=container.media_type, headers=headers)


async def verify(request: Request) -> Response:
    """From what a picture was made."""
    service = _lifecycle(request)
    settings = service.settings
    content = await read_body(request, max_bytes=settings.max_upload_bytes, seconds=settings.body_seconds)
    case = await run_sync(partial(open_case, content, service.catalog, max_pixels=settings.max_pixels))
    if isinstance(case, Verdict):
        return _json(case)
    bundle = service.catalog.named(case.sample.model)
    request.state.model = bundle.name
    work = bundle.work([case.sample], case.judge)
    done = await _done(request, bundle, work)
    return _json(done.value)


async def models(request: Request) -> Response:
    """What is served, and what was refused."""
    catalog = _lifecycle(request).catalog
    return _json(
        ModelList(
            default=catalog.default_for("generate"),
            defaults={task: name for task in TASKS if (name := catalog.default_for(task)) is not None},
            models=[ModelSummary.of(bundle) for bundle in catalog.bundles.values()],
            refused=[Refusal(name=name, reason=reason) for name, reason in catalog.refused.items()],
        )
    )


async def model(request: Request) -> Response:
    """The card of one model."""
    bundle = _lifecycle(request).catalog.named(request.path_params["name"])
    request.state.model = bundle.name
    return _json(ModelCard.of(bundle))


async def sheet(request: Request) -> Response:
    """The sheet of samples that came with a model."""
    bundle = _lifecycle(request).catalog.named(request.path_params["name"])
    request.state.model = bundle.name
    if bundle.samples_png is None:
        raise NotFound(f"model {bundle.name!r} came without samples.png")
    return Response(bundle.samples_png, media_type="image/png")


async def livez(request: Request) -> Response:
    """The process answers, and no batch runs without end."""
    _lifecycle(request).check_alive()
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
    return Response(await run_sync(document), media_type="application/json")


def page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A route for a page in `web/`."""

    async def send(request: Request) -> Response:
        return FileResponse(WEB / name, headers=PAGE_HEADERS)

    return send


class Endpoint:
    """A handler as an ASGI application, without the error handling that Starlette puts around it; see `problems.py`."""

    def __init__(self, handle: Callable[[Request], Awaitable[Response]]) -> None:
        self.handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.handle(Request(scope, receive, send))
        await response(scope, receive, send)


def _get(path: str, handle: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, Endpoint(handle), methods=["GET"])


def _post(path: str, handle: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, Endpoint(handle), methods=["POST"])


ROUTES: list[BaseRoute] = [
    _post("/generate", generate),
    _post("/sample", sample),
    _get("/samples/{id}", sample_again),
    _post("/interpolate", interpolate),
    _post("/translate", translate),
    _post("/verify", verify),
    _get("/models", models),
    _get("/models/{name}", model),
    _get("/models/{name}/samples.png", sheet),
    _get("/livez", livez),
    _get("/readyz", readyz),
    _get("/metrics", metrics),
    _get("/openapi.json", openapi),
    _get("/docs", page("docs.html")),
    _get("/", page("index.html")),
    Mount("/web", StaticFiles(directory=WEB)),
]


def _lifecycle(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


def _bundle(request: Request, name: str | None, task: Task = "generate") -> Bundle:
    bundle = _lifecycle(request).catalog.get(name, task=task)
    request.state.model = bundle.name
    return bundle


async def _parse(request: Request, schema: type[Schema]) -> Schema:
    settings = _lifecycle(request).settings
    return await parse(request, schema, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)


def _accept(request: Request) -> str:
    return ", ".join(request.headers.getlist("accept")) or "*/*"


def _made_by(bundle: Bundle) -> dict[str, str]:
    return {"X-Model": bundle.name, "X-Determinism": bundle.measured.determinism}


async def _picture(
    request: Request, bundle: Bundle, sample: Sample, format_: Format, headers: Mapping[str, str] | None = None
) -> Response:
    """One sample through the queue, as a file."""
    work = bundle.work([sample], ToFile(format_, sample))
    done = await _done(request, bundle, work)
    request.scope["state"]["timings"] = (("queue", done.queue), ("compute", done.compute), ("encode", done.encode))
    return Response(
        done.value,
        media_type=format_.media_type,
        headers={"X-Seed": str(sample.seed), "X-Sample-Id": sample.id, **_made_by(bundle), **(headers or {})},
    )


async def _translated(request: Request, picture: Translation, headers: Mapping[str, str], decode: float) -> Response:
    """One picture as a file: through the queue if it is one row, as bulk work if it is many tiles."""
    began = perf_counter()
    if not picture.is_tiled:
        done = await _done(request, picture.bundle, next(picture.works()))
        content: bytes = done.value
        phases = [("queue", done.queue), ("compute", done.compute), ("encode", done.encode)]
    else:
        pieces = Pieces(picture.bundle.batcher, picture.works())
        content = await in_thread(request, pieces, partial(picture.file, pieces))
        pieces.close()
        phases = [("tiles", perf_counter() - began)]
    request.scope["state"]["timings"] = (("decode", decode), *phases)
    resized = {} if picture.origin.resized is None else {"X-Resized": picture.origin.resized}
    return Response(content, media_type=picture.file_format.media_type, headers={**headers, **resized})


def _representation(ask: TranslateRequest, several: bool, accept: str) -> tuple[Container | None, Format]:
    """How translations leave: the container, None for one picture as it is, and how each picture is stored."""
    in_container = next((name for name in CONTAINERS if name == ask.format), None)
    as_it_is = next((name for name in FORMATS if name == ask.format), None)
    if several and as_it_is is not None:
        raise InvalidValue(
            f"format is {as_it_is!r}, and several pictures come in a container; picture says how each is stored",
            pointer="/format",
            choices=list(CONTAINERS),
        )
    if several or in_container is not None:
        return choose(CONTAINERS, in_container, accept), FORMATS[ask.picture or "png"]
    return None, choose(FORMATS, as_it_is or ask.picture, accept)


async def _done(request: Request, bundle: Bundle, work: Work[T]) -> Done[T]:
    """What becomes of work in the queue, while the client waits for it."""
    future = bundle.batcher.submit(work, deadline=request.state.deadline)
    return await while_connected(request, _lifecycle(request).arrivals.expect(future))


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
