import json
import re
import xml.etree.ElementTree as ET

import pytest

from service.sample import Sample

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
