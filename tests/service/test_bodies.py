import pytest

from service.bodies import Bodies
from service.errors import Overloaded


def test_what_has_no_room_is_refused_and_room_comes_back():
    bodies = Bodies(10)
    with bodies.share() as one:
        one(6)
        with bodies.share() as other:
            other(4)
            with pytest.raises(Overloaded, match="uploads of 10 bytes are in memory, of at most 10"):
                other(1)
        one(4)
    with bodies.share() as next_one:
        next_one(10)


def test_a_body_alone_is_taken_however_large():
    with Bodies(10).share() as take:
        take(8)
        take(8)


def test_clients_that_stop_in_the_middle_do_not_fill_the_memory(listen, plain):
    """Each has sent less than one may; together it is more than all may."""

    def begin(server, length):
        head = f"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: {length + 1}\r\n\r\n"
        connection = server.ask("/livez", {})
        connection.recv(65536)
        connection.sendall(head.encode() + bytes(length))
        return connection

    with listen(upload_memory_bytes=100_000) as server:
        held = begin(server, 80_000)
        refused = server.client.post("/verify", content=bytes(80_000))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert server.client.post("/generate", json={}).status_code == 200  # which brings no upload
        held.close()
        while (answer := server.client.post("/verify", content=bytes(80_000))).status_code == 429:
            pass
        assert answer.status_code == 415
