"""Which picture: all that a picture is a function of, and the names it travels under."""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from service.errors import InvalidValue

# Numbers without leading zeros: a sample has one id.
ID = re.compile(
    r"g1\.(?P<digest>[0-9a-f]{16})\.(?P<seed>0|[1-9][0-9]{0,19})\.(?P<label>-|0|[1-9][0-9]{0,8})"
    r"\.(?P<thousandths>[1-9][0-9]{0,3})"
)


@dataclass(frozen=True)
class Address:
    """What a sample's id holds."""

    digest: str
    """The first 16 hex digits of the bundle's."""
    seed: int
    label: int | None
    truncation: float

    @classmethod
    def parse(cls, id_: str) -> "Address":
        """Read `Sample.id`.

        Raises:
            InvalidValue: if it is no such id.
        """
        match = ID.fullmatch(id_)
        if match is None or int(match["thousandths"]) > 1000 or int(match["seed"]) >= 2**64:
            raise InvalidValue(
                f"{id_[:100]!r} is no sample's id; they look like g1.0123456789abcdef.42.7.1000, and each answer of "
                "/generate tells its own in X-Sample-Id"
            )
        label = None if match["label"] == "-" else int(match["label"])
        return cls(match["digest"], int(match["seed"]), label, int(match["thousandths"]) / 1000)


def in_thousandths(truncation: float) -> float:
    """The value as an id holds it.

    Raises:
        ValueError: if it has more than three decimals, or is not finite.
    """
    if not math.isfinite(truncation) or abs(truncation * 1000 - round(truncation * 1000)) > 1e-6:
        raise ValueError(truncation)
    return round(truncation, 3)


compact_json = json.JSONEncoder(separators=(",", ":")).encode


class Provenance(ABC):
    """What a file says about where it comes from."""

    @abstractmethod
    def to_json(self) -> str:
        """Compact ASCII JSON."""

    def to_xmp(self) -> bytes:
        """An XMP packet with the JSON and IPTC's mark for pictures that a trained model made."""
        return _XMP.format(sample=_attribute(self.to_json())).encode("ascii")


@dataclass(frozen=True)
class Sample(Provenance):
    """One picture before it is made. Equal samples are equal pictures, pixel by pixel."""

    model: str
    version: str
    digest: str
    """Of the bundle: 64 hex digits."""
    seed: int
    label: int | None
    """Index of the class, None for an unconditional bundle."""
    class_name: str | None
    truncation: float
    """In thousandths, so that the id holds all of it."""

    @property
    def id(self) -> str:
        """A URL-safe name that alone addresses the sample: `g1.<digest>.<seed>.<label>.<truncation * 1000>`."""
        label = "-" if self.label is None else self.label
        return f"g1.{self.digest[:16]}.{self.seed}.{label}.{round(self.truncation * 1000)}"

    def to_dict(self) -> dict[str, Any]:
        """The sample under the names that HTTP uses; it holds no time, host or user."""
        return {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "digest": self.digest,
            "seed": self.seed,
            "class": self.class_name,
            "label": self.label,
            "truncation": self.truncation,
        }

    def to_json(self) -> str:
        """Compact ASCII JSON, the same text for equal samples."""
        return self._json

    @cached_property
    def _json(self) -> str:  # a PNG asks for it twice
        return compact_json(self.to_dict())


@dataclass(frozen=True)
class Several(Provenance):
    """What a file of several pictures shows: the members of the request that makes it again, the drawn ones too."""

    facts: Mapping[str, Any]

    def to_json(self) -> str:
        return compact_json(self.facts)


@dataclass(frozen=True)
class Translated(Provenance):
    """What a translated picture is a function of. Its input is named by its hash, and nothing else of it is told."""

    model: str
    version: str
    digest: str
    """Of the bundle: 64 hex digits."""
    seed: int | None
    """None if the bundle takes none."""
    input_sha256: str
    """Of the file that was sent in: 64 hex digits."""
    resized: str | None
    """`300x200 -> 64x64` (width x height), None if the graph saw the picture's own pixels."""

    def to_json(self) -> str:
        return compact_json(asdict(self))


# https://cv.iptc.org/newscodes/digitalsourcetype/ names the kinds of source.
_XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmlns:ganery="urn:ganery:"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"'
    " ganery:sample={sample}/>"
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def _attribute(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'"{escaped}"'
