"""The words that set a group of clips apart from the others."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.report.page import Word

LEAST_Z = 1.645  # one word in twenty that is no more frequent here than elsewhere comes this far by chance
LEAST_CLIPS = 2  # one clip may say a word ten times
MOST_WORDS = 12
_APOSTROPHES = "'’"


@lru_cache(maxsize=65536)
def _kind(char: str) -> str:
    """What a character is part of: a word, a script without spaces between words ("run"), or neither ("")."""
    if char in _APOSTROPHES:
        return "word"
    if unicodedata.category(char)[0] not in "LMN":  # letters, their marks, digits
        return ""
    han_or_kana = "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff"
    return "run" if han_or_kana or "\U00020000" <= char <= "\U000323af" else "word"


def tokens(text: str) -> list[str]:
    """A transcript's words, without case, in any script.

    Chinese and Japanese are cut into pairs of neighbouring characters, as most of their words are two long; a
    character that stands alone is a word.
    """
    found: list[str] = []
    for kind, chars in groupby(unicodedata.normalize("NFKC", text).casefold(), _kind):
        piece = "".join(chars)
        if kind == "run":
            found += [a + b for a, b in pairwise(piece)] or [piece]
        elif kind == "word":
            found.append(piece.replace("’", "'").strip("'"))
    return [token for token in found if token]


def count_spoken(text: str) -> int:
    """How many words are said: for Chinese and Japanese, how many characters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = sum(_kind(token[0]) == "word" for token in tokens(text))
    return words + sum(_kind(char) == "run" for char in folded)


def log_odds(here: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much more frequent each word is in a group than elsewhere: log-odds ratios in their standard errors.

    With y the counts here and y' those elsewhere, n and n' their sums, and a = y + y' as the prior, of sum a0:
    z = [log (y+a)/(n+a0-y-a) - log (y'+a)/(n'+a0-y'-a)] / sqrt(1/(y+a) + 1/(y'+a)). The prior draws words that are
    frequent everywhere, and rare ones, towards 0, so that no list of stop words is needed.

    Args:
        here, whole: (V,) counts, here <= whole, every word at least once in whole.
    Returns:
        (V,), positive where the word is more frequent here.
    Source: Monroe, Colaresi & Quinn 2008, "Fightin' Words", equations 16 and 20 to 22, the corpus being the prior.
    """
    prior = whole.astype(np.float64)
    elsewhere = whole - here

    def log_odds_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        with_prior = counts + prior
        return np.log(with_prior) - np.log(np.maximum(counts.sum() + prior.sum() - with_prior, 1e-9))

    error = np.sqrt(1 / (here + prior) + 1 / (elsewhere + prior))
    return np.asarray((log_odds_of(here) - log_odds_of(elsewhere)) / error)


def characteristic_words(transcripts: Sequence[str], clusters: NDArray[np.int64]) -> dict[int, list[Word]]:
    """The words of each cluster, the most characteristic first, at most MOST_WORDS.

    Args:
        transcripts: a clip each, "" where there is none.
        clusters: (N,) ids.
    Returns:
        cluster -> words with z of LEAST_Z or more that LEAST_CLIPS or more of its clips say.
    """
    said = [Counter(tokens(text)) for text in transcripts]
    vocabulary = sorted({word for counts in said for word in counts})
    column = {word: i for i, word in enumerate(vocabulary)}
    ids, rows = np.unique(clusters, return_inverse=True)
    times = np.zeros((len(ids), len(vocabulary)), dtype=np.int64)  # a word is said
    clips = np.zeros_like(times)  # that say it
    for row, counts in zip(rows, said, strict=True):
        for word, n in counts.items():
            times[row, column[word]] += n
            clips[row, column[word]] += 1
    found = {}
    for row, cluster in enumerate(ids):
        z = log_odds(times[row], times.sum(axis=0))
        kept = [i for i in np.argsort(-z, kind="stable") if z[i] >= LEAST_Z and clips[row, i] >= LEAST_CLIPS]
        n_elsewhere = clips.sum(axis=0) - clips[row]
        found[int(cluster)] = [
            Word(vocabulary[i], float(z[i]), int(clips[row, i]), int(n_elsewhere[i])) for i in kept[:MOST_WORDS]
        ]
    return found
