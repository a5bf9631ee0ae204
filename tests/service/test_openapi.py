import json

import jsonschema
import pytest
from starlette.routing import Route

from service import errors
from service.animations import ANIMATIONS
from service.archives import ARCHIVES
from service.errors import GaneryError
from service.formats import FORMATS
from service.forms import BODIES, PICTURES
from service.openapi import document
from service.routes import ROUTES
from service.schemas import GenerateRequest, InterpolateRequest, SampleRequest, TranslateRequest
from service.uploads import READERS

DOCUMENT = json.loads(document())
SCHEMES = DOCUMENT["components"]["securitySchemes"]
OPERATIONS = [
    (path, method, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]


def references(value):
    if isinstance(value, dict):
        yield from [value["$ref"]] if "$ref" in value else []
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def with_components(schema):
    return {**schema, "components": DOCUMENT["components"]}


def test_every_route_is_documented():
    routes = {(route.path, min(route.methods - {"HEAD"}).lower()) for route in ROUTES if isinstance(route, Route)}
    assert routes == {(path, method) for path, method, _ in OPERATIONS}


def test_every_reference_leads_somewhere():
    names = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references(DOCUMENT)) <= names


def test_what_may_be_sent_is_what_is_read_and_not_what_is_written():
    readable = {reader.media_type for reader in READERS.values()}
    verify, translate = (
        DOCUMENT["paths"][path]["post"]["requestBody"]["content"] for path in ("/verify", "/translate")
    )
    assert set(verify) == readable
    assert set(translate) - set(BODIES) == readable


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_schemas_are_json_schema(name):
    jsonschema.Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


def test_every_error_with_a_status_of_its_own_is_documented():
    documented = {int(status) for _, _, operation in OPERATIONS for status in operation["responses"]}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GaneryError)]
    elsewhere = {405, 431}  # no operation has these: the path has another method, or no route is known yet
    assert {int(kind.status) for kind in kinds} - elsewhere | {200, 304} == documented


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_problem_has_an_example_that_fits(path, method, operation):
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            problem = answer["content"]["application/problem+json"]
            jsonschema.validate(problem["example"], with_components(problem["schema"]))
            assert problem["example"]["status"] == int(status)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_keys_and_slow_bodies_are_documented(path, method, operation):
    closed = path not in {"/", "/docs", "/openapi.json", "/livez", "/readyz"}
    assert ("401" in operation["responses"]) == ("security" in operation) == closed
    assert ("408" in operation["responses"]) == ("requestBody" in operation)
    assert operation.get("security", [{"key": []}, {}]) == [{name: [] for name in SCHEMES}, {}]


@pytest.mark.parametrize("request_", [GenerateRequest, SampleRequest, InterpolateRequest])
def test_request_examples_are_valid(request_):
    for example in DOCUMENT["components"]["schemas"][request_.__name__]["examples"]:
        request_.model_validate(example)


@pytest.mark.parametrize("path", ["/generate", "/sample", "/interpolate"])
def test_bodies_have_an_example(path):
    body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    jsonschema.validate(body["example"], with_components(body["schema"]))


def test_the_example_of_a_picture_names_all_that_can_be_asked():
    body = DOCUMENT["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"].keys() == DOCUMENT["components"]["schemas"]["GenerateRequest"]["properties"].keys()


def test_translate_documents_each_body_and_each_member():
    operation = DOCUMENT["paths"]["/translate"]["post"]
    bodies = operation["requestBody"]["content"]
    assert set(BODIES) - set(bodies) == {"application/x-zip-compressed", "application/octet-stream",
                                         "application/x-www-form-urlencoded", ""}  # fmt: skip
    members = {field.alias or name for name, field in TranslateRequest.model_fields.items()}
    assert {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"} == members
    assert set(bodies["multipart/form-data"]["schema"]["properties"]) == {*members, PICTURES}
    optional = {name for name, header in operation["responses"]["200"]["headers"].items() if not header["required"]}
    assert optional == {"X-Seed", "X-Resized", "X-Count", "Content-Disposition"}


def test_a_sample_may_be_unchanged():
    responses = DOCUMENT["paths"]["/samples/{id}"]["get"]["responses"]
    assert set(responses["304"]["headers"]) <= set(responses["200"]["headers"])


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_route_takes_a_deadline_and_an_id(path, method, operation):
    assert {"X-Deadline-Ms", "X-Request-Id"} <= {parameter["name"] for parameter in operation["parameters"]}
    assert {"422", "500", "504"} <= set(operation["responses"])


def test_operation_ids_are_unique():
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("path", "template"),
    [("/models", "/models"), ("/models/digits", "/models/{name}"), ("/readyz", "/readyz"), ("/livez", "/livez")],
)
def test_answers_are_as_documented(serve, plain, digits, path, template):
    with serve() as client:
        answer = client.get(path).json()
    schema = DOCUMENT["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, with_components(schema))


def test_problems_are_as_documented(serve, plain):
    with serve() as client:
        problems = [client.get("/nothing"), client.post("/generate", json={"seed": -1}), client.get("/generate")]
    for problem in problems:
        jsonschema.validate(problem.json(), with_components({"$ref": "#/components/schemas/Problem"}))


ONE = {"model": "plain", "seed": 1}
ASKS = [
    *[("/generate", {**ONE, "format": name}, 200) for name in FORMATS],
    *[("/sample", {**ONE, "count": 2, "format": name}, 200) for name in ARCHIVES],
    *[("/interpolate", {"model": "plain", "from": 1, "to": 2, "format": name}, 200) for name in ANIMATIONS],
    ("/generate", {"model": "nothing"}, 404),
    ("/sample", {"model": "plain", "count": 10**9}, 413),
    ("/interpolate", {"model": "plain", "from": 1}, 422),
]


@pytest.mark.parametrize(("path", "ask", "status"), ASKS)
def test_files_and_their_headers_are_as_documented(shared, path, ask, status):
    answer = shared.post(path, json=ask)
    assert answer.status_code == status
    documented = DOCUMENT["paths"][path]["post"]["responses"][str(status)]
    media_type = answer.headers["content-type"]
    assert media_type in documented["content"]
    assert {name.lower() for name, header in documented["headers"].items() if header["required"]} <= set(answer.headers)
    if media_type.endswith("json"):
        jsonschema.validate(answer.json(), with_components(documented["content"][media_type]["schema"]))
