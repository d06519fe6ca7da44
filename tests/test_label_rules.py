"""How raw labels become classes: MOSI's published accuracies, by hand."""

from pathlib import Path

import pytest

from pipeline.corpora import read_corpus
from pipeline.corpora.label_rules import apply_label_rule
from pipeline.errors import PipelineError


@pytest.mark.parametrize(
    ("rule", "value", "label"),
    [
        ("round7", "-3.0", "-3"),
        ("round7", "2.5", "2"),
        ("round7", "1.5", "2"),
        ("round7", "-0.5", "0"),
        ("round7", "-0.4", "0"),
        ("round7", "7", "3"),
        ("round7", " -99 ", "-3"),
        ("sign3", "-0.2", "negative"),
        ("sign3", "-0.0", "neutral"),
        ("sign3", "0.2", "positive"),
        ("sign2", "-0.2", "negative"),
        ("sign2", "0", "non-negative"),
        ("sign2", "3", "non-negative"),
        ("as_is", " Happy ", "Happy"),
        ("as_is", "-1.60", "-1.60"),
    ],
)
def test_label_rules(rule: str, value: str, label: str) -> None:
    assert apply_label_rule(value, rule) == label


@pytest.mark.parametrize("value", ["", "good", "nan", "inf", "1e999", "1_0", "1,5"])
@pytest.mark.parametrize("rule", ["round7", "sign3", "sign2"])
def test_a_label_that_is_no_number_is_refused(rule: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"expected a number, got '{value}'"):
        apply_label_rule(value, rule)


def test_an_unknown_label_rule_names_the_nearest(tmp_path: Path) -> None:
    message = "unknown label rule 'round'; did you mean 'round7'\\? known: round7, sign3, sign2, as_is"
    with pytest.raises(ValueError, match=message):
        apply_label_rule("1", "round")
    for kind in ("mosi", "mmsa", "folder"):
        with pytest.raises(PipelineError, match=f"corpus.label_rule: {message}"):
            read_corpus(kind, tmp_path, label_rule="round")
