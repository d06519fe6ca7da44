"""Matchmaps and the three similarities of a picture and a sound (Harwath et al. 2018, sec. 3.4).

The matchmap of a picture I (D, P places) and a sound A (D, T steps) is M = I^T A, (P, T): how well each place fits each
step. SISA is its mean; MISA the mean over steps of the best place; SIMA the mean over places of the best step.
"""

import torch
from torch import Tensor

SIMILARITIES = ("SISA", "MISA", "SIMA")
MATCHMAP_VALUES = 2**26  # of one chunk of pictures: 256 MB in float32


def similarity_matrix(
    images: Tensor, audios: Tensor, n_steps: Tensor, kind: str, *, max_values: int = MATCHMAP_VALUES
) -> Tensor:
    """The similarity of every picture to every sound.

    All matchmaps of a chunk of pictures are one matrix product. Only the places of the maxima are kept for the backward
    pass, so memory stays within one chunk's matchmaps whatever the batch.

    Args:
        images: (B, D, P), or (B, D, H, W): embeddings of places.
        audios: (A, D, T): embeddings of steps, padded to a common T.
        n_steps: (A,) whole numbers in 1..T, how many steps of each sound are real.
        kind: "SISA" | "MISA" | "SIMA".
        max_values: so many matchmap values at once, at the least one picture's.
    Returns:
        (B, A), pictures along the rows.
    Raises:
        ValueError: an unknown kind, shapes that do not fit, n_steps out of range.
    Source: Harwath et al. 2018, eq. 1-4.
    """
    places, audios = _checked(images, audios, n_steps, kind)  # (B, P, D), (A, D, T)
    n_sounds, dim, n_padded = audios.shape
    real = torch.arange(n_padded, device=audios.device) < n_steps.to(audios.device)[:, None]  # (A, T)
    if kind == "SISA":  # the mean of the products is the product of the means
        pooled = (audios * real[:, None]).sum(2) / real.sum(1)[:, None]  # (A, D)
        return places.mean(1) @ pooled.T
    steps = audios.permute(1, 0, 2).reshape(dim, n_sounds * n_padded)  # (D, A T)
    n_places = places.shape[1]
    at_once = max(1, max_values // (n_places * n_sounds * n_padded))
    reduce = _best_place if kind == "MISA" else _best_step
    return torch.cat(
        [
            reduce((chunk.reshape(-1, dim) @ steps).view(len(chunk), n_places, n_sounds, n_padded), real)
            for chunk in places.split(at_once)
        ]
    )


def _checked(images: Tensor, audios: Tensor, n_steps: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind not in SIMILARITIES:
        raise ValueError(f"unknown similarity {kind!r}; known: {', '.join(SIMILARITIES)}")
    if images.ndim == 4:
        images = images.flatten(2)
    if images.ndim != 3 or audios.ndim != 3 or images.shape[1] != audios.shape[1]:
        raise ValueError(
            f"expected pictures (B, D, P) and sounds (A, D, T) of one D, got {(*images.shape,)} and {(*audios.shape,)}"
        )
    if n_steps.shape != audios.shape[:1] or n_steps.min() < 1 or n_steps.max() > audios.shape[2]:
        raise ValueError(
            f"n_steps: expected {len(audios)} whole numbers in 1..{audios.shape[2]}, got {n_steps.tolist()}"
        )
    return images.transpose(1, 2), audios


def _best_place(matchmaps: Tensor, real: Tensor) -> Tensor:
    """(B, P, A, T) -> (B, A): mean over the real steps of the best place."""
    best = matchmaps.max(dim=1).values  # (B, A, T); amax would keep all of its input for the backward pass
    return (best * real).sum(2) / real.sum(1)


def _best_step(matchmaps: Tensor, real: Tensor) -> Tensor:
    """(B, P, A, T) -> (B, A): mean over places of the best real step."""
    return matchmaps.masked_fill(~real, -torch.inf).max(dim=3).values.mean(dim=1)
