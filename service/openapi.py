"""The contract as OpenAPI 3.1, made from the models in `schemas.py` and the errors in `errors.py`."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service import __version__
from service.animations import ANIMATIONS
from service.archives import ARCHIVES, CONTAINERS
from service.errors import (
    DeadlineExceeded,
    GaneryError,
    InvalidValue,
    MalformedRequest,
    ModelFailure,
    NotAcceptable,
    NotFound,
    NotReady,
    Overloaded,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    UnknownModel,
    UnsupportedMediaType,
    WrongTask,
)
from service.formats import FORMATS, HasMediaType
from service.forms import PICTURES
from service.keys import OPEN_PATHS
from service.problems import MEDIA_TYPE
from service.schemas import (
    GenerateRequest,
    InterpolateRequest,
    ModelCard,
    ModelList,
    Problem,
    SampleList,
    SampleRequest,
    Status,
    TranslateRequest,
    Verdict,
)
from service.uploads import READERS, TITLES

JsonObject = dict[str, Any]

EXAMPLES: dict[type[GaneryError], GaneryError] = {
    MalformedRequest: MalformedRequest(
        "the body is not JSON: EOF while parsing a value at line 1 column 0; send a JSON object: its members stand in "
        "/openapi.json"
    ),
    Unauthorized: Unauthorized("this needs a key; send the header Authorization: Bearer KEY"),
    NotFound: NotFound("nothing is at /generates; the routes stand in /openapi.json"),
    UnknownModel: UnknownModel("unknown model 'digit'; available: digits, fashion", choices=["digits", "fashion"]),
    NotAcceptable: NotAcceptable("Accept: text/html takes nothing that this route makes; it makes image/png, ..."),
    RequestTimeout: RequestTimeout("the body has not come within 10 seconds; send it at once"),
    WrongTask: WrongTask(
        "model 'flat-to-3d' does 'translate'; asked for is 'generate', which fashion can do", choices=["fashion"]
    ),
    TooLarge: TooLarge("the body is larger than 65536 bytes; send less"),
    UnsupportedMediaType: UnsupportedMediaType("Content-Type is text/plain; send application/json"),
    InvalidValue: InvalidValue("/seed: Input should be greater than or equal to 0; got -1", pointer="/seed"),
    Overloaded: Overloaded("1024 pictures are waiting, 2.4 seconds of work, and no more may wait", retry_after=3),
    ModelFailure: ModelFailure("the generator failed"),
    NotReady: NotReady("bundles are being loaded; ask again in a moment"),
    DeadlineExceeded: DeadlineExceeded("no answer within 30 seconds; ask for less, or again later"),
}
MAKING: tuple[type[GaneryError], ...] = (
    MalformedRequest,
    UnknownModel,
    NotAcceptable,
    WrongTask,
    TooLarge,
    UnsupportedMediaType,
    Overloaded,
    NotReady,
)
ALWAYS: tuple[type[GaneryError], ...] = (InvalidValue, ModelFailure, DeadlineExceeded)
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "from GET /models"}
DEADLINE = {
    "name": "X-Deadline-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1},
    "description": "milliseconds in which the answer must begin, if fewer than the service's own",
}
MADE_BY = {
    "X-Model": "the model that made it",
    "X-Determinism": "how rows are kept independent of their batch: `exact; batch=free`, `exact; batch=8`, ...",
}
ONE_SAMPLE = {
    "X-Seed": "the seed, drawn or given",
    "X-Sample-Id": "addresses this picture: g1.<digest>.<seed>.<label>.<truncation * 1000>",
    **MADE_BY,
}
REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "schema": {"type": "string"},
    "description": "kept if it is 1 to 64 letters, digits, dots, dashes and underscores; else one is drawn",
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "the ETag of an earlier answer; a 304 if it holds",
}
CACHED = {
    "ETag": "of the sample in this format",
    "Cache-Control": "it never changes",
    "Vary": "the format depends on Accept",
}
EVERY_ANSWER = {
    "X-Request-Id": "the request's own, or one that was drawn for it",
    "Server-Timing": "milliseconds, `total` and those of its phases",
}
KEY = {"type": "http", "scheme": "bearer", "description": "needed if the service has been given keys"}


@cache
def document() -> str:
    """The document, as JSON."""
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Ganery",
                "version": __version__,
                "description": "Pictures from generators. A picture is a function of bundle digest, seed, class, "
                "truncation and input, and of nothing else.",
            },
            "paths": _guarded(_paths()),
            "components": {"schemas": _schemas(), "securitySchemes": {"key": KEY}},
        }
    )


def _paths() -> JsonObject:
    picture: JsonObject = {"type": "string", "contentEncoding": "binary"}
    text = {"type": "string"}
    return {
        "/generate": {
            "post": _operation(
                "One seed, one picture",
                "generate",
                _files(FORMATS.values()),
                MAKING,
                headers=ONE_SAMPLE,
                requestBody=_body(GenerateRequest),
            )
        },
        "/sample": {
            "post": _operation(
                "Many pictures in one stream; the connection breaks if it cannot be finished",
                "sample",
                {**_files(ARCHIVES.values()), **_json(SampleList)},
                MAKING,
                headers={
                    "X-Seed": "the seed of the first sample, drawn or given",
                    "X-Count": "how many samples",
                    "Content-Disposition": "a name for the file",
                    **MADE_BY,
                },
                requestBody=_body(SampleRequest),
            )
        },
        "/samples/{id}": {
            "get": {
                **_operation(
                    "The sample of an id, again",
                    "sample_again",
                    _files(FORMATS.values()),
                    (UnknownModel, NotAcceptable, Overloaded, NotReady),
                    headers={**ONE_SAMPLE, **CACHED},
                    parameters=[{**NAME, "name": "id", "description": "from X-Sample-Id"}, IF_NONE_MATCH],
                    unchanged=CACHED,
                )
            }
        },
        "/interpolate": {
            "post": _operation(
                "The way from sample to sample",
                "interpolate",
                _files(ANIMATIONS.values()),
                MAKING,
                headers={"X-Frames": "how many frames", "Content-Disposition": "a name for the file", **MADE_BY},
                requestBody=_body(InterpolateRequest),
            )
        },
        "/translate": {
            "post": _operation(
                "A picture, or several, through a network",
                "translate",
                {**_files(FORMATS.values()), **_files(CONTAINERS.values())},
                MAKING,
                headers=MADE_BY,
                optional_headers={
                    "X-Seed": "the seed, drawn or given, if the model takes one",
                    "X-Resized": "`300x200 -> 64x64`, width x height, if one picture came to a model of another size: "
                    "scaled with its proportions kept, in the middle of the model's background",
                    "X-Count": "how many pictures, if they come in a container",
                    "Content-Disposition": "a name for the container",
                },
                parameters=_in_query(TranslateRequest),
                requestBody={"required": True, "content": _pictures_with(TranslateRequest)},
            )
        },
        "/verify": {
            "post": _operation(
                "Was this picture made here, and from what?",
                "verify",
                _json(Verdict),
                (MalformedRequest, TooLarge, UnsupportedMediaType, Overloaded, NotReady),
                requestBody={"required": True, "content": _files(READERS.values())},
            )
        },
        "/models": {"get": _operation("What is served", "models", _json(ModelList), (NotReady,))},
        "/models/{name}": {
            "get": _operation("One model", "model", _json(ModelCard), (UnknownModel, NotReady), parameters=[NAME])
        },
        "/models/{name}/samples.png": {
            "get": _operation(
                "A sheet of samples",
                "samples",
                {"image/png": {"schema": picture}},
                (UnknownModel, NotReady),
                parameters=[NAME],
            )
        },
        "/livez": {"get": _operation("The process answers", "livez", _json(Status), (NotReady,))},
        "/readyz": {"get": _operation("Whether to send requests here", "readyz", _json(Status), (NotReady,))},
        "/metrics": {"get": _operation("For Prometheus", "metrics", {"text/plain": {"schema": text}}, ())},
        "/openapi.json": {
            "get": _operation("This document", "openapi", {"application/json": {"schema": {"type": "object"}}}, ())
        },
        "/docs": {"get": _operation("This document, to read", "docs", {"text/html": {"schema": text}}, ())},
        "/": {"get": _operation("The playground", "playground", {"text/html": {"schema": text}}, ())},
    }


def _guarded(paths: JsonObject) -> JsonObject:
    """Say what every operation has in common that needs a key, or takes a body."""
    for path, operations in paths.items():
        for operation in operations.values():
            if path not in OPEN_PATHS:
                operation["security"] = [{"key": []}, {}]
                operation["responses"]["401"] = _problem(Unauthorized)
            if "requestBody" in operation:
                operation["responses"]["408"] = _problem(RequestTimeout)
    return paths


def _operation(
    summary: str,
    operation_id: str,
    content: JsonObject,
    problems: Sequence[type[GaneryError]],
    *,
    headers: dict[str, str] | None = None,
    optional_headers: dict[str, str] | None = None,
    parameters: Sequence[JsonObject] = (),
    unchanged: dict[str, str] | None = None,
    **more: Any,
) -> JsonObject:
    told = {**_headers(headers or {}), **_headers(optional_headers or {}, required=False)}
    responses = {"200": {"description": "OK", "headers": told, "content": content}}
    if unchanged is not None:
        responses["304"] = {"description": "as before", "headers": _headers(unchanged), "content": {}}
    return {
        "summary": summary,
        "operationId": operation_id,
        "parameters": [*parameters, DEADLINE, REQUEST_ID],
        **more,
        "responses": {**responses, **{str(int(p.status)): _problem(p) for p in (*problems, *ALWAYS)}},
    }


def _headers(named: dict[str, str], *, required: bool = True) -> JsonObject:
    return {
        name: {"description": text, "required": required, "schema": {"type": "string"}}
        for name, text in {**named, **(EVERY_ANSWER if required else {})}.items()
    }


def _in_query(model: type[BaseModel]) -> list[JsonObject]:
    """The members of a request that come in the query."""
    return [
        {"name": name, "in": "query", "schema": schema, "description": schema.pop("description")}
        for name, schema in _text_members(model).items()
    ]


def _pictures_with(model: type[BaseModel]) -> JsonObject:
    """The bodies that bring pictures; in a form, the members of a request come beside them."""
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    pictures = {"type": "array", "items": file, "minItems": 1, "description": f"{TITLES} files"}
    form = {"type": "object", "required": [PICTURES], "properties": {PICTURES: pictures, **_text_members(model)}}
    zip_ = {"schema": {"type": "string", "contentEncoding": "binary", "description": "a zip of pictures"}}
    return {
        **_files(READERS.values()),
        "multipart/form-data": {"schema": {**form, "additionalProperties": False}},
        "application/zip": zip_,
    }


def _text_members(model: type[BaseModel]) -> JsonObject:
    """Each member's schema without null, which no text is: what is not said is left out."""
    members = {}
    for name, schema in model.model_json_schema()["properties"].items():
        kinds = [kind for kind in schema["anyOf"] if kind.get("type") != "null"]
        members[name] = {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), "description": schema["description"]}
    return members


def _problem(kind: type[GaneryError]) -> JsonObject:
    example = {**EXAMPLES[kind].problem(), "request_id": "8d1c6e0f2b7a4953"}
    assert kind.__doc__ is not None
    return {
        "description": kind.__doc__,
        "headers": _headers(dict.fromkeys(kind.headers, "see RFC 9110")),
        "content": {MEDIA_TYPE: {"schema": _ref(Problem), "example": example}},
    }


def _json(model: type) -> JsonObject:
    return {"application/json": {"schema": _ref(model)}}


def _body(model: type[BaseModel]) -> JsonObject:
    example = model.model_json_schema()["examples"][0]
    return {"required": True, "content": {"application/json": {"schema": _ref(model), "example": example}}}


def _files(kinds: Iterable[HasMediaType]) -> JsonObject:
    return {kind.media_type: {"schema": {"type": "string", "contentEncoding": "binary"}} for kind in kinds}


def _ref(model: type) -> JsonObject:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _schemas() -> JsonObject:
    asked: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (ask, "validation") for ask in (GenerateRequest, SampleRequest, InterpolateRequest)
    ]
    answered: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (answer, "serialization") for answer in (ModelList, ModelCard, SampleList, Verdict, Status, Problem)
    ]
    _, document = models_json_schema([*asked, *answered], ref_template="#/components/schemas/{model}")
    schemas: JsonObject = document["$defs"]
    return schemas
