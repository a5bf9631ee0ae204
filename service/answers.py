"""Work through the queue, and the response that becomes of it."""

import asyncio
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.archives import CONTAINERS, Container
from service.bundle import Bundle
from service.endpoint import lifecycle_of
from service.errors import InvalidValue
from service.formats import FORMATS, Format, ToFile, choose
from service.jobs import Done
from service.pieces import Pieces
from service.presence import while_connected
from service.sample import Sample
from service.schemas import TranslateRequest
from service.streaming import in_thread
from service.translation import Translation
from service.work import Work

T = TypeVar("T")


class Whole(Response):
    """A file in one piece. Its headers are what is given, and are not looked through as in Starlette's own.

    Args:
        content: bytes of the file.
        media_type: without a charset.
        headers: ASCII, with names in lower case.
    """

    def __init__(self, content: bytes, media_type: str, headers: Mapping[str, str]) -> None:
        self.status_code = HTTPStatus.OK
        self.background = None
        self.body = content
        all_headers = {"content-length": str(len(content)), "content-type": media_type, **headers}
        self.raw_headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in all_headers.items()]


def as_json(answer: BaseModel) -> Response:
    """One of the schemas as a document."""
    return Response(answer.model_dump_json(), media_type="application/json")


def made_by(bundle: Bundle) -> dict[str, str]:
    """Headers of every answer that a bundle has made."""
    return {"x-model": bundle.name, "x-determinism": bundle.measured.determinism}


async def result_of(request: Request, bundle: Bundle, work: Work[T]) -> Done[T]:
    """What becomes of work in the queue, while the client waits for it."""
    arrival = lifecycle_of(request).arrivals.expect()
    job = bundle.batcher.put(work, arrival, deadline=request.scope["state"]["clock"].result_due)
    try:
        done: Done[T] = await while_connected(request, arrival.waiter)
    except (asyncio.CancelledError, ClientDisconnect):
        bundle.batcher.withdraw(job)
        raise
    return done


async def one_picture(
    request: Request, bundle: Bundle, sample: Sample, format_: Format, headers: Mapping[str, str] | None = None
) -> Response:
    """One sample through the queue, as a file."""
    work = bundle.work([sample], ToFile(format_, sample))
    done = await result_of(request, bundle, work)
    request.scope["state"]["timings"] = (("queue", done.queue), ("compute", done.compute), ("encode", done.encode))
    headers = {"x-seed": str(sample.seed), "x-sample-id": sample.id, **made_by(bundle), **(headers or {})}
    return Whole(done.value, format_.media_type, headers)


async def one_translation(
    request: Request, picture: Translation, headers: Mapping[str, str], decode: float
) -> Response:
    """One picture as a file: through the queue if it is one row, as bulk work if it is many tiles."""
    began = perf_counter()
    if not picture.is_tiled:
        done = await result_of(request, picture.bundle, next(picture.works()))
        content: bytes = done.value
        phases = [("queue", done.queue), ("compute", done.compute), ("encode", done.encode)]
    else:
        deadline = request.scope["state"]["clock"].deadline
        pieces = Pieces(picture.bundle.batcher, picture.works(), pixels=picture.cost, deadline=deadline)
        content = await in_thread(request, pieces, partial(picture.file, pieces))
        pieces.close()
        phases = [("tiles", perf_counter() - began)]
    request.scope["state"]["timings"] = (("decode", decode), *phases)
    resized = {} if picture.origin.resized is None else {"x-resized": picture.origin.resized}
    return Whole(content, picture.file_format.media_type, {**headers, **resized})


def representation(ask: TranslateRequest, several: bool, accept: str) -> tuple[Container | None, Format]:
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
    if as_it_is is None and isinstance(container := choose({**FORMATS, **CONTAINERS}, None, accept), Container):
        return container, FORMATS[ask.picture or "png"]
    return None, choose(FORMATS, as_it_is or ask.picture, accept)
