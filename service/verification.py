"""Was this picture made here, and from what? It is made once more, and compared."""

import html
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic_core import from_json

from service.catalog import Catalog
from service.errors import GaneryError
from service.formats import FORMATS
from service.pixels import Pixels
from service.sample import Address, Sample
from service.schemas import Verdict
from service.uploads import Upload, read_picture

NEAR_LEVELS = 2
MAX_TOLD = 64 * 1024
"""Characters of what a file says that are told again; a sheet's list of thousands of samples is not."""
XMP_SAMPLE = re.compile(r'ganery:sample="([^"]*)"')


def claim(upload: Upload) -> dict[str, Any] | None:
    """What a file says it was made from, None if it says nothing that this service writes."""
    text = upload.metadata or ""
    if in_xmp := XMP_SAMPLE.search(text):
        text = html.unescape(in_xmp[1])
    try:
        # Not json.loads: what that takes too, deep nesting, NaN and half characters, could not be told in the answer.
        facts = from_json(text, allow_inf_nan=False)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


@dataclass(frozen=True)
class Case:
    """An uploaded picture, and the sample that it claims to be."""

    content: bytes
    upload: Upload
    facts: dict[str, Any]
    """What the file says; only the id of it is believed."""
    sample: Sample

    def judge(self, pixels: Pixels) -> Verdict:
        """Compare with the pixels that the sample has now, uint8 [1, height, width, channels]."""
        made = FORMATS[self.upload.format].encode(pixels[0], self.sample)
        # As read from a file again: what a lossy format loses is no difference between the two.
        expected = read_picture(made, max_pixels=pixels.size).pixels
        pixels = _in_channels(self.upload.pixels, expected.shape[-1])
        if expected.shape != pixels.shape:
            return self.of_another_shape(expected.shape)
        difference = np.abs(expected.astype(np.int16) - pixels)
        largest, mean = int(difference.max()), float(difference.mean())
        if made == self.content:
            return self._verdict("bytes", "the very file that is made from this sample", largest, mean)
        if largest == 0:
            return self._verdict("pixels", "the pixels of this sample, in another file", largest, mean)
        if largest <= NEAR_LEVELS:
            return self._verdict("near", f"no value is more than {NEAR_LEVELS} levels from this sample", largest, mean)
        return self._verdict("different", "it says it is this sample, and is not", largest, mean)

    def of_another_shape(self, expected: tuple[int, ...]) -> Verdict:
        """The verdict where the sample is `expected`, height, width and channels, and the upload is not."""
        wanted, came = (" x ".join(map(str, shape)) for shape in (expected, self.upload.pixels.shape))
        return self._verdict("different", f"the sample is {wanted}, this is {came}")

    def _verdict(self, match: Any, detail: str, largest: int | None = None, mean: float | None = None) -> Verdict:
        sample = self.sample.to_dict()
        if untrue := [name for name, value in sample.items() if name in self.facts and self.facts[name] != value]:
            detail += f"; what else the file says contradicts its id: {', '.join(untrue)}"
        return Verdict(
            made_here=match in {"bytes", "pixels", "near"},
            match=match,
            detail=detail,
            sample=sample,
            largest_difference=largest,
            mean_difference=mean,
        )


def open_case(content: bytes, catalog: Catalog, *, max_pixels: int) -> Case | Verdict:
    """Read a picture and find the sample that it claims to be; a verdict at once if there is none to make.

    Raises:
        MalformedRequest, TooLarge, UnsupportedMediaType: see `read_picture`.
    """
    upload = read_picture(content, max_pixels=max_pixels)
    facts = claim(upload)
    told = facts if len(upload.metadata or "") <= MAX_TOLD else None
    if facts is None or not isinstance(facts.get("id"), str):
        return Verdict(made_here=False, match="unknown", detail=_why_unknown(facts or {}), sample=told)
    try:
        address = Address.parse(facts["id"])
        bundle = catalog.of_digest(address.digest, facts.get("model"))
        sample = bundle.sample(seed=address.seed, class_=address.label, truncation=address.truncation)
    except GaneryError as error:
        return Verdict(made_here=False, match="unknown", detail=error.detail, sample=told)
    case = Case(content, upload, facts, sample)
    # Said at once: what waits in the queue is to be as large as what it is compared with.
    return case if upload.pixels.shape[:2] == bundle.shape[:2] else case.of_another_shape(bundle.shape)


def _in_channels(pixels: Pixels, channels: int) -> Pixels:
    """A grey picture as a coloured one, or the other way round if nothing is lost: editors store them as they like."""
    if channels == 3 and pixels.shape[-1] == 1:
        return pixels.repeat(3, axis=-1)
    if channels == 1 and (pixels == pixels[..., :1]).all():
        return pixels[..., :1]
    return pixels


def _why_unknown(facts: dict[str, Any]) -> str:
    if "input_sha256" in facts:
        return (
            "it says it is a translation, which can only be made again from its input: send /translate the file with "
            "that input_sha256, and compare"
        )
    if "sheet" in facts or "interpolation" in facts:
        return "it says it shows several samples: send the picture of one, as /samples/{id} gives it"
    return "the file does not say that it is a sample of this service; metadata is easily lost on the way"
