"""Seeds to latents: the first half of the promise "one seed, one picture".

A latent depends on its seed alone, never on how many others are drawn with it, so sample i of a batch is the sample
of its seed. Training uses this module too, which makes a seed mean the same picture in a preview, a bundle and a reply.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidLatent

Latents = NDArray[np.float32]
Scheme = Literal["philox", "stylegan"]


def philox(seed: int, z_dim: int) -> Latents:
    """z ~ N(0, I) from the counter-based generator keyed by the seed, float32 [z_dim].

    Reference: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    """
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(z_dim, dtype=np.float32)


def stylegan(seed: int, z_dim: int) -> Latents:
    """z as the StyleGAN family draws it, so that its published seeds keep their pictures, float32 [z_dim]."""
    return np.random.RandomState(seed).randn(z_dim).astype(np.float32)


SCHEMES: dict[Scheme, tuple[Callable[[int, int], Latents], int]] = {
    "philox": (philox, 2**64),
    "stylegan": (stylegan, 2**32),
}
"""Scheme -> (draw one latent, number of seeds it knows)."""


def draw(seeds: Sequence[int], z_dim: int, scheme: Scheme = "philox") -> Latents:
    """Latents for seeds, float32 [N, z_dim]; row i depends on `seeds[i]` alone.

    Raises:
        InvalidLatent: if a seed lies outside [0, number of seeds of the scheme).
    """
    draw_one, limit = SCHEMES[scheme]
    for seed in seeds:
        if not 0 <= seed < limit:
            raise InvalidLatent(
                f"seed {seed} is out of range; this model takes integers from 0 to {limit - 1}", pointer="/seed"
            )
    z = np.empty((len(seeds), z_dim), np.float32)
    for row, seed in zip(z, seeds, strict=True):
        row[:] = draw_one(seed, z_dim)
    return z


def slerp(a: Latents, b: Latents, t: float) -> Latents:
    """Interpolate on the sphere, so that the norm stays typical of N(0, I).

    Args:
        a, b: latents, float32 [z_dim]; where they are parallel, the straight line between them is taken.
        t: position; 0 gives `a` and 1 gives `b`, bit for bit.

    Returns:
        float32 [z_dim].

    Reference: White, "Sampling Generative Networks", 2016, arXiv:1609.04468, section 2.1.
    """
    if t in {0, 1}:
        return b if t else a
    start, end = a.astype(np.float64), b.astype(np.float64)
    cosine = (start @ end) / (np.linalg.norm(start) * np.linalg.norm(end))
    omega = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(omega) < 1e-6:
        between = (1 - t) * start + t * end
    else:
        between = (np.sin((1 - t) * omega) * start + np.sin(t * omega) * end) / np.sin(omega)
    return between.astype(np.float32)


def fresh_seed() -> int:
    """A seed for a request that names none: below 2**32, short to copy and exact in JavaScript."""
    return secrets.randbelow(2**32)
