from service.headers import header_of


def test_of_a_header_that_comes_twice_the_first_counts():
    scope = {"headers": [(b"x-a", b"1"), (b"x-b", b"\xe4"), (b"x-a", b"2")], "state": {}}
    assert (header_of(scope, b"x-a"), header_of(scope, b"x-b"), header_of(scope, b"x-c")) == ("1", "ä", None)


def test_headers_are_gone_through_once():
    scope = {"headers": [(b"x-a", b"1")], "state": {}}
    assert header_of(scope, b"x-a") == "1"
    scope["headers"] = [(b"x-a", b"2")]
    assert header_of(scope, b"x-a") == "1"
