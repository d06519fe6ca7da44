"""The scores that a running training's lines tell: of clips with a label, and of no great many."""

import pytest

from pipeline import cluster


@pytest.mark.parametrize(("most", "expected"), [(3, [0, 2]), (2, [])])
def test_a_great_many_clips_are_not_scored_while_training_goes_on(monkeypatch, most, expected):
    monkeypatch.setattr(cluster, "SCORED_AT_MOST", most)
    reporter = cluster._Reporter(None, ["a", "b", "c"], {"a": "1", "c": "2"}, lambda report: None)
    assert reporter.scored == expected
