import inspect
from http import HTTPStatus

import pytest

from service import errors
from service.errors import GaneryError, InvalidValue, MethodNotAllowed, NotReady, Overloaded, UnknownModel

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GaneryError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_the_tree_with_its_status(kind):
    own_status = next(base.status for base in kind.__mro__ if "status" in vars(base))
    line = next(line for line in errors.__doc__.splitlines() if kind.__name__ in line)
    assert isinstance(own_status, HTTPStatus)
    if "status" in vars(kind) and kind is not GaneryError:
        assert line.endswith(str(int(own_status)))


def test_a_problem_names_itself_and_leaves_out_what_it_lacks():
    assert UnknownModel("gone").problem() == {
        "type": "urn:ganery:problem:unknown-model",
        "title": "Not Found",
        "status": 404,
        "detail": "gone",
    }


def test_a_problem_points_and_offers():
    problem = InvalidValue("no", pointer="/class", choices=("a", "b")).problem()
    assert (problem["pointer"], problem["choices"]) == ("/class", ["a", "b"])


def test_what_is_placed_in_a_request_loses_nothing():
    error = InvalidValue("no", pointer="/class", choices=("a", "b"))
    error.place(before="picture 2: ", pointer="/points/1/class")
    assert (error.detail, str(error), error.pointer) == ("picture 2: no", "picture 2: no", "/points/1/class")
    assert error.choices == ["a", "b"]
    late = Overloaded("full", retry_after=3)
    late.place(before="picture 2: ")
    assert (late.detail, late.headers) == ("picture 2: full; ask again in 3 s", {"Retry-After": "3"})


def test_headers_belong_to_the_kind():
    assert MethodNotAllowed("PUT", allowed="GET, HEAD").headers == {"Allow": "GET, HEAD"}
    assert NotReady("later").headers == {"Retry-After": "1"}
