"""Characteristic words: tokens in several scripts, and log-odds against values by hand and a slow double loop."""

import math

import numpy as np
import pytest

from pipeline.report.words import LEAST_Z, characteristic_words, count_spoken, log_odds, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can't, I CAN’T believe 'it'!", ["i", "can't", "i", "can't", "believe", "it"]),
        ("Größe naïve e\u0301t\u00e9", ["grösse", "naïve", "été"]),  # e with a combining accent is é
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are no letters, and part of the word
        ("我很喜欢。好", ["我很", "很喜", "喜欢", "好"]),
        ("我love你们", ["我", "love", "你们"]),
        ("これは・ペン", ["これ", "れは", "ペン"]),
        ("snake_case 3rd — 100%", ["snake", "case", "3rd", "100"]),
        ("좋은 영화", ["좋은", "영화"]),
        ("' '' … <b>", ["b"]),
        ("", []),
    ],
)
def test_tokens_are_the_words_of_any_script(text, expected):
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "n"), [("it was awful", 3), ("我很喜欢。好", 5), ("我love你们", 4), ("", 0), ("?!", 0)]
)
def test_what_is_spoken_is_counted_in_words_or_in_characters(text, n):
    assert count_spoken(text) == n


def test_log_odds_is_the_formula_by_hand():
    # Two words; here 3 and 1, elsewhere 1 and 5; the prior is the whole, 4 and 6, of sum 10.
    # First: odds here (3+4) / (4+10-7) = 1, elsewhere (1+4) / (6+10-5) = 5/11, variance 1/7 + 1/5.
    z = log_odds(np.array([3, 1]), np.array([4, 6]))
    assert z[0] == pytest.approx(math.log(11 / 5) / math.sqrt(12 / 35))
    assert z[1] == pytest.approx(-math.log(11 / 5) / math.sqrt(1 / 7 + 1 / 11))


def slow_z(texts, clusters, cluster, word):
    """Equations 16 and 22 of Monroe et al., a count at a time."""
    here = elsewhere = n_here = n_elsewhere = 0
    for text, k in zip(texts, clusters, strict=True):
        for token in text.split():
            n_here += k == cluster
            n_elsewhere += k != cluster
            here += token == word and k == cluster
            elsewhere += token == word and k != cluster
    prior, whole = here + elsewhere, n_here + n_elsewhere
    delta = math.log((here + prior) / (n_here + whole - here - prior)) - math.log(
        (elsewhere + prior) / (n_elsewhere + whole - elsewhere - prior)
    )
    return delta / math.sqrt(1 / (here + prior) + 1 / (elsewhere + prior))


def test_words_of_clusters_are_those_of_a_double_loop():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(12)]
    clusters = rng.integers(3, size=60)
    chances = rng.dirichlet(np.full(12, 0.5), size=3)
    texts = [" ".join(rng.choice(vocabulary, 8, p=chances[k])) for k in clusters]
    found = characteristic_words(texts, clusters)
    assert sum(map(len, found.values())) > 4
    for k, words in found.items():
        expected = {}
        for word in vocabulary:
            z, n_clips = (
                slow_z(texts, clusters, k, word),
                sum(word in t.split() for t in np.array(texts)[clusters == k]),
            )
            if z >= LEAST_Z and n_clips >= 2:
                expected[word] = (z, n_clips, sum(word in t.split() for t in np.array(texts)[clusters != k]))
        assert {w.word: (pytest.approx(w.z), w.n_here, w.n_elsewhere) for w in words} == expected
        assert [w.z for w in words] == sorted((w.z for w in words), reverse=True)


def test_a_word_that_one_clip_repeats_is_no_clusters_word():
    texts = ["spam " * 30, "we saw it", "we heard it", "we had it", "good good", "good it", "good we"]
    found = characteristic_words(texts, np.array([0, 0, 0, 0, 1, 1, 1]))
    assert found[0] == []
    assert [(w.word, w.n_here, w.n_elsewhere) for w in found[1]] == [("good", 3, 0)]


def test_frequent_words_that_are_everywhere_stay_out():
    texts = ["the film is good"] * 20 + ["the film is bad"] * 20
    found = characteristic_words(texts, np.arange(40) // 20)
    assert [w.word for w in found[0]] == ["good"]
    assert [w.word for w in found[1]] == ["bad"]


@pytest.mark.parametrize("texts", [["", "", ""], ["same", "same", "same"], ["a b", "a b", "a b"]])
def test_where_nothing_differs_there_are_no_words(texts):
    assert characteristic_words(texts, np.array([0, 1, 1])) == {0: [], 1: []}
    assert characteristic_words(texts, np.array([2, 2, 2])) == {2: []}
