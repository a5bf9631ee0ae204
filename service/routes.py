"""The public routes: parse, call, encode."""

import math
from functools import partial
from http import HTTPStatus
from itertools import chain
from time import perf_counter

from anyio.to_thread import run_sync
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount

from service import __version__
from service.animations import ANIMATIONS
from service.answers import as_json, made_by, one_picture, one_translation, representation, result_of
from service.archives import ARCHIVES
from service.bundle import Bundle
from service.endpoint import WEB, WholeFiles, bringing, get, lifecycle_of, page, post
from service.errors import InvalidValue, NotFound, TooLarge
from service.formats import ENCODERS, FORMATS, choose
from service.forms import BodyLimits, read_pictures, safe_names
from service.headers import header_of
from service.interpolation import Interpolation
from service.manifest import Task
from service.openapi import document
from service.parsing import Schema, check, from_text, parse, read_body, refuse_encoded, refuse_query
from service.pieces import Pieces
from service.plan import Plan
from service.presence import while_connected
from service.sample import Address
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
from service.streaming import stream
from service.tasks import TASKS
from service.translation import TimeLimit, seed_for, translations
from service.verification import open_case

MAX_ACCEPT = 2000
"""Characters of the header Accept that are looked at; browsers send 150."""


async def generate(request: Request) -> Response:
    """One seed, one picture."""
    ask = await _parse(request, GenerateRequest)
    format_ = choose(FORMATS, ask.format, _accept(request))
    bundle = _bundle(request, ask.model)
    sample = bundle.sample(seed=ask.seed, class_=ask.class_, truncation=ask.truncation)
    return await one_picture(request, bundle, sample, format_)


async def sample_again(request: Request) -> Response:
    """The sample of an id, again."""
    refuse_query(request, "the header Accept says which format is wanted")
    address = Address.parse(request.path_params["id"])
    format_ = choose(FORMATS, None, _accept(request))
    bundle = lifecycle_of(request).catalog.of_digest(address.digest)
    request.scope["state"]["model"] = bundle.name
    sample = bundle.sample(seed=address.seed, class_=address.label, truncation=address.truncation)
    # The id says all that the picture depends on; of its file's bytes the service and its encoders decide. What needs a
    # key is not for caches that others share.
    shared = lifecycle_of(request).settings.api_keys_file is None
    headers = {
        "etag": f'"{sample.id}.{format_.extension}.{__version__}.{ENCODERS}"',
        "cache-control": f"{'public' if shared else 'private'}, max-age=31536000, immutable",
        "vary": "Accept",
    }
    known = header_of(request.scope, b"if-none-match") or ""
    if known.strip() == "*" or headers["etag"] in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return await one_picture(request, bundle, sample, format_, headers)


async def sample(request: Request) -> Response:
    """Many seeds, many pictures, in one stream."""
    service = lifecycle_of(request)
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
        start=ask.start,
        max_count=service.settings.max_count,
    )
    archive = kind(plan, FORMATS[ask.picture], max_pixels=service.settings.max_pixels)
    works = plan.works(archive.packing)
    pieces = Pieces(bundle.batcher, works, pixels=plan.pixels, deadline=_deadline(request, archive.whole))
    name = f"{bundle.name}-{plan.seeds[0]}-{len(plan)}.{archive.extension}"
    return await stream(
        request,
        pieces,
        archive.write(pieces),
        media_type=archive.media_type,
        headers={
            "x-seed": str(plan.seeds[0]),
            "x-count": str(len(plan)),
            **made_by(bundle),
            "content-disposition": f'attachment; filename="{name}"',
        },
    )


async def interpolate(request: Request) -> Response:
    """The way from sample to sample."""
    service = lifecycle_of(request)
    ask = await _parse(request, InterpolateRequest)
    kind = choose(ANIMATIONS, ask.format, _accept(request))
    bundle = _bundle(request, ask.model)
    points = []
    for seed, class_, pointers in ask.way():
        try:
            points.append(bundle.sample(seed=seed, class_=class_))
        except InvalidValue as error:
            error.place(pointer=pointers.get(error.pointer or ""))
            raise
    way = Interpolation(bundle, points, ask.steps, ask.loop)
    if way.pixels > service.settings.max_pixels:
        raise TooLarge(
            f"{len(way)} frames have {way.pixels} pixels; at most {service.settings.max_pixels} are made: "
            "ask for fewer points, or fewer steps"
        )
    works = way.works(partial(kind.packing, way))
    pieces = Pieces(bundle.batcher, works, pixels=way.pixels, deadline=_deadline(request, kind.whole))
    name = f"{bundle.name}-{points[0].seed}-{len(way)}.{kind.extension}"
    return await stream(
        request,
        pieces,
        kind.write(pieces, way, ask.milliseconds),
        media_type=kind.media_type,
        headers={
            "x-frames": str(len(way)),
            **made_by(bundle),
            "content-disposition": f'attachment; filename="{name}"',
        },
    )


async def translate(request: Request) -> Response:
    """A picture, or several, through a network."""
    service = lifecycle_of(request)
    settings, decoding = service.settings, service.decoding
    refuse_encoded(request)
    body = await read_body(request, max_bytes=settings.max_upload_bytes, seconds=settings.body_seconds)
    began = perf_counter()
    limits = BodyLimits(settings.max_uploads, settings.max_upload_bytes)
    content_type = header_of(request.scope, b"content-type") or ""
    deadline = request.scope["state"]["clock"].deadline
    read_all = partial(read_pictures, body, content_type, limits)
    brought = await while_connected(request, decoding.run(read_all, deadline=deadline))
    del body, read_all
    said = [*request.query_params.multi_items(), *brought.fields.items()]
    ask = check(from_text(said, numbers={"seed"}), TranslateRequest)
    container, file_format = representation(ask, brought.several, _accept(request))
    bundle = _bundle(request, ask.model, task="translate")
    seed = seed_for(bundle, ask.seed)
    read = partial(
        translations,
        bundle,
        brought.pictures,
        seed=seed,
        file_format=file_format,
        max_pixels=settings.max_pixels,
        # At the deadline the thread is left behind: it ends at its next picture.
        time_limit=TimeLimit(deadline, settings.deadline_seconds),
    )
    pictures = await while_connected(request, decoding.run(read, deadline=deadline))
    headers = {**({} if seed is None else {"x-seed": str(seed)}), **made_by(bundle)}
    decode = perf_counter() - began
    if container is None:
        return await one_translation(request, pictures[0], headers, decode)
    names = safe_names((picture.name for picture in brought.pictures), file_format.extension)
    works = chain.from_iterable(picture.works() for picture in pictures)
    pieces = Pieces(bundle.batcher, works, pixels=sum(picture.cost for picture in pictures))
    files = ((name, picture.file(pieces)) for name, picture in zip(names, pictures, strict=True))
    headers |= {
        "x-count": str(len(pictures)),
        "content-disposition": f'attachment; filename="{bundle.name}.{container.extension}"',
    }
    return await stream(request, pieces, container.write(files), media_type=container.media_type, headers=headers)


async def verify(request: Request) -> Response:
    """From what a picture was made."""
    service = lifecycle_of(request)
    settings = service.settings
    refuse_query(request, "the picture is all that is sent, as the body")
    refuse_encoded(request)
    content = await read_body(request, max_bytes=settings.max_upload_bytes, seconds=settings.body_seconds)
    read = partial(open_case, content, service.catalog, max_pixels=settings.max_pixels)
    deadline = request.scope["state"]["clock"].deadline
    case = await while_connected(request, service.decoding.run(read, deadline=deadline))
    if isinstance(case, Verdict):
        return as_json(case)
    bundle = service.catalog.named(case.sample.model)
    request.scope["state"]["model"] = bundle.name
    work = bundle.work([case.sample], case.judge)
    done = await result_of(request, bundle, work)
    return as_json(done.value)


async def models(request: Request) -> Response:
    """What is served, and what was refused."""
    catalog = lifecycle_of(request).catalog
    named = {task: catalog.default_for(task) for task in TASKS}
    defaults = {task: name for task, name in named.items() if name is not None and name in catalog.bundles}
    return as_json(
        ModelList(
            default=defaults.get("generate"),
            defaults=defaults,
            models=[ModelSummary.of(bundle) for bundle in catalog.bundles.values()],
            refused=[Refusal(name=name, reason=reason) for name, reason in catalog.refused.items()],
        )
    )


async def model(request: Request) -> Response:
    """The card of one model."""
    bundle = lifecycle_of(request).catalog.named(request.path_params["name"])
    request.scope["state"]["model"] = bundle.name
    return as_json(ModelCard.of(bundle))


async def sheet(request: Request) -> Response:
    """The sheet of samples that came with a model."""
    bundle = lifecycle_of(request).catalog.named(request.path_params["name"])
    request.scope["state"]["model"] = bundle.name
    if bundle.samples_png is None:
        raise NotFound(f"model {bundle.name!r} came without samples.png")
    return Response(bundle.samples_png, media_type="image/png")


async def livez(request: Request) -> Response:
    """The process answers, and no batch runs without end."""
    lifecycle_of(request).check_alive()
    return as_json(Status(status="alive"))


async def readyz(request: Request) -> Response:
    """Whether requests should be sent here."""
    lifecycle_of(request).check_ready()
    return as_json(Status(status="ready"))


async def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(lifecycle_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def openapi(request: Request) -> Response:
    """The contract."""
    return Response(await run_sync(document), media_type="application/json")


ROUTES: list[BaseRoute] = [
    post("/generate", generate),
    post("/sample", sample),
    get("/samples/{id}", sample_again),
    post("/interpolate", interpolate),
    post("/translate", bringing(translate)),
    post("/verify", bringing(verify)),
    get("/models", models),
    get("/models/{name}", model),
    get("/models/{name}/samples.png", sheet),
    get("/livez", livez),
    get("/readyz", readyz),
    get("/metrics", metrics),
    get("/openapi.json", openapi),
    get("/docs", page("docs.html")),
    get("/", page("index.html")),
    Mount("/web", WholeFiles(directory=WEB)),
]


def _bundle(request: Request, name: str | None, task: Task = "generate") -> Bundle:
    bundle = lifecycle_of(request).catalog.get(name, task=task)
    request.scope["state"]["model"] = bundle.name
    return bundle


def _deadline(request: Request, whole: bool) -> float:
    """By when a long answer must have been computed."""
    deadline: float = request.scope["state"]["clock"].deadline
    return deadline if whole else math.inf


async def _parse(request: Request, schema: type[Schema]) -> Schema:
    settings = lifecycle_of(request).settings
    return await parse(request, schema, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)


def _accept(request: Request) -> str:
    came = [str(value, "latin-1") for name, value in request.scope["headers"] if name == b"accept"]
    return ", ".join(came)[:MAX_ACCEPT] or "*/*"
