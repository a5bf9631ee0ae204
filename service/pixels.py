"""Pictures in memory: uint8, 0 black to 255 white, [height, width, channels] or N of these."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def pixels_sha256(picture: Pixels) -> str:
    """Hex digest of a picture's bytes [height, width, channels] in C order."""
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
