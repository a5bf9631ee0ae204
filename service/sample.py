"""Which picture: all that a picture is a function of, and the names it travels under."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
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

    def to_json(self) -> str:
        """Compact ASCII JSON, the same text for equal samples; it holds no time, host or user."""
        return json.dumps(
            {
                "id": self.id,
                "model": self.model,
                "version": self.version,
                "digest": self.digest,
                "seed": self.seed,
                "class": self.class_name,
                "label": self.label,
                "truncation": self.truncation,
            },
            separators=(",", ":"),
        )

    def to_xmp(self) -> bytes:
        """An XMP packet with the JSON and IPTC's mark for pictures that a trained model made."""
        return _XMP.format(sample=_attribute(self.to_json())).encode("ascii")


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
