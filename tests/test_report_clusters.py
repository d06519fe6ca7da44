"""Cards by hand: who stands for a cluster, what the modalities add, and the sentence."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import entropy

from pipeline.report.clusters import divergence_bits, modality_in_cluster, shown_rows, summary, voice_of
from pipeline.report.page import ModalityInCluster, Voice, Word


def test_typical_clips_are_the_surest_and_then_the_nearest_to_the_centre():
    confidence = np.array([0.991, 0.5, 0.994, 0.80, 0.4, 0.7, 0.9, 0.3])
    clusters = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    # The centre of cluster 0 is 0; row 0 and row 2 are as sure to two decimals, and row 2 is the farther one.
    space = np.array([[1.0], [0], [-3], [0], [1], [1], [0], [9]])
    assert shown_rows(clusters, confidence, space) == {0: ([0, 2, 6, 3, 5], [4, 1]), 1: ([7], [])}


def test_no_clip_is_both_typical_and_least_sure():
    found = shown_rows(np.zeros(7, int), np.linspace(0.4, 0.9, 7), np.zeros((7, 1)))
    assert found == {0: ([6, 5, 4, 3, 2], [0, 1])}


def test_what_the_others_add_is_kl_in_bits():
    p, q = np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]), np.array([[0.25, 0.75], [0.5, 0.5], [0.25, 0.75]])
    # 0.5 log2(0.5/0.25) + 0.5 log2(0.5/0.75) = 0.5 - 0.5 log2(1.5); a clip that is sure against a coin: one bit.
    expected = [0.5 - 0.5 * math.log2(1.5), 1.0, 0.0]
    np.testing.assert_allclose(divergence_bits(p, q), expected, atol=3e-5)
    np.testing.assert_allclose(divergence_bits(p[::2], q[::2]), entropy(p[::2], q[::2], axis=1, base=2), atol=1e-9)


def test_a_cluster_that_a_modality_rules_out_costs_much_and_not_infinitely():
    (bits,) = divergence_bits(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]], dtype=np.float32))
    assert bits == pytest.approx(math.log2(1e6), rel=1e-3)


def test_a_modality_in_a_cluster():
    fused = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    text = np.array([[1.0, 0, 0], [0.25, 0.75, 0], [0, 0.5, 0.5 + 1e-9], [np.nan] * 3, [0, 1.0, 0]])
    model = SimpleNamespace(proba_=fused, modality_proba_={"text": text, "audio": np.full((5, 3), np.nan)})
    run = SimpleNamespace(model=model, clusters=np.array([0, 0, 0, 0, 1]))
    found = modality_in_cluster(run, "text", 0)
    bits = (0 + (0.5 - 0.5 * math.log2(1.5)) + math.log2(1e6)) / 3
    assert (found.n_clips, found.agree) == (3, pytest.approx(1 / 3))
    assert found.elsewhere in (1, 2)
    assert found.others_add_bits == pytest.approx(bits, rel=1e-3)
    assert modality_in_cluster(run, "text", 1) == ModalityInCluster("text", 1, 1.0, pytest.approx(0, abs=1e-4), None)
    assert modality_in_cluster(run, "audio", 0) == ModalityInCluster("audio", 0, 0.0, 0.0, None)


def test_the_voice_is_set_against_all_clips_that_are_known():
    nothing = np.full(5, np.nan)
    voice = {"pitch": np.array([100.0, 200, 300, 400, np.nan]), "loudness": np.full(5, -20.0), "speaking rate": nothing}
    (pitch,) = voice_of(voice, np.array([True, True, False, False, True]))
    # Mean 250 and sd sqrt(12500) of four clips; 150 here.
    assert pitch == Voice("pitch", "Hz", 150.0, 250.0, pytest.approx(-100 / math.sqrt(12500)), 2)
    assert voice_of(voice, np.array([False] * 4 + [True])) == []


def modality(name, agree, n_clips=9):
    return ModalityInCluster(name, n_clips, agree, 0.0, None)


def test_the_sentence_tells_voice_words_and_labels():
    voice = [Voice("loudness", "LUFS", -12, -20, 1.23, 14), Voice("pitch", "Hz", 200, 199, 0.1, 14),
             Voice("speaking rate", "words/s", 4, 3, 0.7, 14)]  # fmt: skip
    words = [Word(word, 2.0, 3, 0) for word in ("wonderful", "loved")]
    told = summary(voice, words, [("happy", 12), ("sad", 2)], [])
    assert told == (
        "A louder (+1.2 sd) and faster (+0.7 sd) voice than on average; words: wonderful, loved; "
        "mostly “happy” (12 of 14 labelled)."
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([("a", 3)], "All “a” (3 of 3 labelled)."),
        ([("a", 2), ("b", 2)], "Most often “a” (2 of 4 labelled)."),
        ([("</script>", 1)], "All “</script>” (1 of 1 labelled)."),
    ],
)
def test_labels_are_told_as_they_are(labels, told):
    assert summary([], [], labels, []) == told


def test_a_difference_that_few_clips_make_by_chance_is_not_told():
    few = Voice("pitch", "Hz", 200, 100, -1.2, 2)  # 2 standard errors of 2 clips are 1.4 sd
    more = Voice("pitch", "Hz", 200, 100, -1.2, 4)
    assert "lower" not in summary([few], [], [("a", 1)], [])
    assert "A lower (−1.2 sd) voice than on average" in summary([more], [], [("a", 1)], [])


def test_where_nothing_else_tells_the_modalities_do():
    told = summary([], [], [], [modality("text", 0.4), modality("visual", 0.95), modality("audio", 0.0, 0)])
    assert told == "Clips that a modality alone would put here too: visual 95% and text 40%."
