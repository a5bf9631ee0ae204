"""Bodies to requests: a size, a type, JSON, a schema; the first thing wrong is the answer."""

import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import ClientDisconnect, Request

from service.deadline import Clock
from service.errors import (
    InvalidValue,
    MalformedRequest,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
    json_pointer,
)
from service.headers import header_of

Schema = TypeVar("Schema", bound=BaseModel)

NUMBER = re.compile("-?[0-9]{1,40}")
QUOTED = re.compile("'([^']*)'")
UNKNOWN = "there is no such member; those that there are stand in /openapi.json"


async def parse(request: Request, schema: type[Schema], *, max_bytes: int, seconds: float) -> Schema:
    """Read a JSON body and check it.

    Raises:
        UnsupportedMediaType: if the body is not plain `application/json`.
        TooLarge, RequestTimeout: see `read_body`.
        MalformedRequest: if it is not JSON; NaN, infinities and absurd nesting are not.
        InvalidValue: if it breaks the schema, or there is a query.
    """
    media_type = (header_of(request.scope, b"content-type") or "none").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"Content-Type is {media_type[:100]}; send application/json")
    refuse_encoded(request)
    refuse_query(request, "send members in the JSON object of the body")
    body = await read_body(request, max_bytes=max_bytes, seconds=seconds)
    try:
        payload = from_json(body, allow_inf_nan=False)
        json.loads(body, object_pairs_hook=_once)  # of members that come twice the other tells only the last
    except ValueError as error:
        raise MalformedRequest(
            f"the body is not JSON: {error}; send a JSON object: its members stand in /openapi.json"
        ) from None
    if not isinstance(payload, dict):
        raise InvalidValue(
            f"the body is {_shown(payload)}; send a JSON object: its members stand in /openapi.json", pointer=""
        )
    return check(payload, schema)


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members, as one."""
    by_name: dict[str, Any] = {}
    for name, value in members:
        if name in by_name:
            raise InvalidValue(f"{_shown(name)} comes twice in an object of the body; send it once", pointer="")
        by_name[name] = value
    return by_name


def check(payload: dict[str, Any], schema: type[Schema]) -> Schema:
    """Members as a request.

    Raises:
        InvalidValue: if they break the schema.
    """
    try:
        return schema.model_validate(payload)
    except ValidationError as error:
        raise _invalid_value(error.errors(include_url=False), payload, schema) from None


def refuse_query(request: Request, instead: str) -> None:
    """
    Raises:
        InvalidValue: if something is said in the query, where nobody reads it.
    """
    if query := request.scope.get("query_string"):
        raise InvalidValue(f"the query {_shown(query.decode('latin-1'))} is not read; {instead}", pointer="")


def refuse_encoded(request: Request) -> None:
    """
    Raises:
        UnsupportedMediaType: if the body is compressed, or encoded otherwise.
    """
    encoding = (header_of(request.scope, b"content-encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding is {encoding[:100]}; send the body as it is")


def from_text(fields: Iterable[tuple[str, str]], numbers: Collection[str]) -> dict[str, Any]:
    """Members of a query or a form, in which all is text: numbers become numbers, and what is empty was left out.

    Args:
        fields: names and values, as they came.
        numbers: names of those that are numbers.

    Raises:
        InvalidValue: if one comes twice.
    """
    members: dict[str, Any] = {}
    for name, text in fields:
        if name in members:
            raise InvalidValue(f"{name[:100]} comes twice; send it once", pointer=json_pointer([name[:100]]))
        if text:
            members[name] = int(text) if name in numbers and NUMBER.fullmatch(text) else text
    return members


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """The whole body.

    Raises:
        TooLarge: if it is longer than `max_bytes`, whatever Content-Length says.
        RequestTimeout: if not all of it has come after so many seconds; see `Clock`.
        ClientDisconnect: if the client has gone.
        Overloaded: if uploads are counted (`endpoint.bringing`), and there is no room for it.
    """
    # Refused by its announcement, before a byte of it is read; the count below is what is relied on.
    announced = header_of(request.scope, b"content-length") or ""
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise TooLarge(f"the body is larger than {max_bytes} bytes; send less")
    clock: Clock = request.scope["state"]["clock"]
    clock.wait_for(
        seconds, lambda: RequestTimeout(f"the body has not come within {seconds:g} seconds; send it at once")
    )
    take: Callable[[int], None] = request.scope["state"].get("take_bytes", lambda count: None)
    body = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        take(len(part))
        body += part
        more = message.get("more_body", False)
        if len(body) > max_bytes:
            raise TooLarge(f"the body is larger than {max_bytes} bytes; send less")
    clock.go_on()
    return bytes(body)


def _invalid_value(errors: list[ErrorDetails], payload: object, schema: type[BaseModel]) -> InvalidValue:
    """The first member that is wrong, with all that is wrong about it: a union has one complaint for each branch."""
    first = errors[0]
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in schema.model_fields.items()]
        return InvalidValue(
            f"unknown member {_shown(first['loc'][-1])}; known: {', '.join(known)}",
            pointer=json_pointer(first["loc"]),
            choices=known,
        )
    places = [_place(error["loc"], payload) for error in errors]
    # The branch that got furthest into the member is the one that was meant.
    path, value = max((place for place in places if place[0][:1] == places[0][0][:1]), key=lambda place: len(place[0]))
    about = [error for error, (own, _) in zip(errors, places, strict=True) if own == path]
    complaints = [UNKNOWN if error["type"] == "extra_forbidden" else error["msg"] for error in about]
    choices = [choice for error in about for choice in QUOTED.findall(error.get("ctx", {}).get("expected", ""))]
    pointer = json_pointer(path)
    return InvalidValue(
        f"{pointer}: {', or: '.join(complaints)}; got {_shown(value)}", pointer=pointer, choices=choices or None
    )


def _place(loc: Iterable[Any], payload: Any) -> tuple[list[Any], Any]:
    """The part of pydantic's location that is in the payload, and what is there; the names of branches are not."""
    path = []
    for key in loc:
        in_object = isinstance(payload, dict) and key in payload
        in_array = isinstance(payload, list) and isinstance(key, int)
        if in_object or in_array:
            payload = payload[key]
            path.append(key)
    return path, payload


def _shown(value: Any, most: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}..."
