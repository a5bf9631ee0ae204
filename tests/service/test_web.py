import re

import pytest

from service.endpoint import WEB
from service.uploads import READERS

PAGES = {"/": "index.html", "/docs": "docs.html"}


@pytest.mark.parametrize("path", PAGES)
def test_pages_may_only_load_from_here(serve, path):
    with serve() as client:
        response = client.get(path)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        for asset in re.findall(r'(?:src|href)="(/web/[^"]+)"', response.text):
            answer = client.get(asset)
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == response.headers["cache-control"] == "no-cache"
        for file in (path, asset):
            answer = client.get(file, headers={"Range": "bytes=0-10"})
            assert (answer.status_code, answer.headers["accept-ranges"]) == (200, "none")
            again = client.get(file, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("file", sorted(WEB.iterdir()), ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere(file):
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z]+\.", text)


@pytest.mark.parametrize("name", PAGES.values())
def test_the_policy_has_nothing_to_forbid(name):
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=|javascript:", (WEB / name).read_text())


def test_the_playground_asks_for_a_key_and_keeps_it_nowhere():
    page = (WEB / "index.html").read_text()
    assert re.search(r'<form id="key-field" hidden><label>Key <input id="key" type="password"', page)
    assert not re.search(r"storage|cookie|indexedDB", (WEB / "playground.js").read_text(), re.IGNORECASE)


def test_a_picture_may_be_of_any_kind_that_is_read():
    accepted = re.search(r'id="translate-file" type="file" accept="([^"]*)"', (WEB / "index.html").read_text())
    assert accepted[1].split(",") == [reader.media_type for reader in READERS.values()]


def test_translating_is_offered_only_where_something_translates():
    page, script = (WEB / "index.html").read_text(), (WEB / "translate.js").read_text()
    assert '<section id="translate" aria-labelledby="translate-title" hidden>' in page
    assert '$("translate").hidden = !models.length' in script
    ids = set(re.findall(r'\$\("([a-z-]+)"\)', script + (WEB / "playground.js").read_text()))
    assert ids <= set(re.findall(r'\sid="([a-z-]+)"', page))
