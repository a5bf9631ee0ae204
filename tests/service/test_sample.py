import json
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidValue
from service.sample import Address, Sample, Several

SAMPLE = Sample("digits", "1.2", "ab" * 32, 2**64 - 1, 2, "two", 0.7)


def test_the_id_holds_all_that_a_picture_depends_on():
    assert SAMPLE.id == "g1.abababababababab.18446744073709551615.2.700"
    plain = Sample("plain", "1", "cd" * 32, 0, None, None, 1.0)
    assert plain.id == "g1.cdcdcdcdcdcdcdcd.0.-.1000"


def test_the_id_needs_no_escaping():
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", SAMPLE.id)


def test_json_is_compact():
    assert " " not in SAMPLE.to_json()
    assert json.loads(SAMPLE.to_json())["seed"] == 2**64 - 1


@pytest.mark.parametrize("name", ["two", 'a "quoted" <b> & c', "naïve 字", "line\nbreak\x01"])
def test_xmp_is_xml_that_holds_the_json(name):
    sample = Sample("digits", "1", "ab" * 32, 1, 0, name, 1.0)
    (description,) = ET.fromstring(sample.to_xmp()).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert json.loads(description.get("{urn:ganery:}sample"))["class"] == name
    source = description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@given(
    st.integers(0, 2**64 - 1),
    st.none() | st.integers(0, 10**9 - 1),
    st.integers(1, 1000).map(lambda thousandths: thousandths / 1000),
)
def test_an_address_is_read_back_from_an_id(seed, label, truncation):
    sample = Sample("digits", "1", "0123456789abcdef" * 4, seed, label, None, truncation)
    assert Address.parse(sample.id) == Address("0123456789abcdef", seed, label, truncation)


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "g1",
        "g2.abababababababab.1.2.1000",
        "g1.abababababababa.1.2.1000",
        "g1.ABABABABABABABAB.1.2.1000",
        "g1.abababababababab.18446744073709551616.2.1000",
        "g1.abababababababab.-1.2.1000",
        "g1.abababababababab.1.1000000000.1000",
        "g1.abababababababab.1..1000",
        "g1.abababababababab.1.2.0",
        "g1.abababababababab.1.2.1001",
        "g1.abababababababab.1.2",
        "g1.abababababababab.1.2.1000.",
        " g1.abababababababab.1.2.1000",
        "g1.abababababababab.1.2.1000\n",
        # Another name for what has one already.
        "g1.abababababababab.01.2.1000",
        "g1.abababababababab.1.02.1000",
        "g1.abababababababab.1.2.0500",
        "g1.abababababababab.٣.2.1000",
        "g1.abababababababab.1.2.٣",
    ],
)
def test_what_is_no_id_is_told_how_ids_look(id_):
    with pytest.raises(InvalidValue, match=r"is no sample's id; they look like g1\.") as error:
        Address.parse(id_)
    assert len(error.value.detail) < 300


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_mistake(text):
    try:
        Address.parse(text)
    except InvalidValue:
        pass
    else:
        assert text.startswith("g1.")


def test_several_tell_the_request_that_makes_them_again():
    several = Several({"sheet": [SAMPLE.id], "loop": True})
    assert several.to_json() == f'{{"sheet":["{SAMPLE.id}"],"loop":true}}'
    assert SAMPLE.id.encode() in several.to_xmp()
