"""How a corpus' raw label becomes a class. Labels are for evaluation; nothing that trains reads them."""

from collections.abc import Callable

from pipeline.corpora.base import Corpus, unknown_name
from pipeline.corpora.tables import parse_number
from pipeline.errors import PipelineError


def _round7(value: str) -> str:
    # Half to even, as np.round: the published 7-class accuracy on MOSI takes np.round(np.clip(y, -3, 3)).
    return str(round(min(max(parse_number(value), -3.0), 3.0)))


def _sign3(value: str) -> str:
    number = parse_number(value)
    if number == 0:
        return "neutral"
    return "positive" if number > 0 else "negative"


def _sign2(value: str) -> str:
    return "non-negative" if parse_number(value) >= 0 else "negative"


LABEL_RULES: dict[str, Callable[[str], str]] = {
    "round7": _round7,
    "sign3": _sign3,
    "sign2": _sign2,
    "as_is": str.strip,
}


def apply_label_rule(value: str, rule: str) -> str:
    """One raw label to its class.

    Args:
        value: the label as the corpus has it; a number for every rule but as_is.
        rule: "round7": cut to [-3, 3] and rounded, half to even, "-3".."3" (MOSI's 7-class accuracy);
            "sign3": "negative", "neutral", "positive"; "sign2": "negative", "non-negative" (MOSI's binary accuracy
            that counts 0); "as_is": unchanged but for outer blanks.
    Raises:
        ValueError: an unknown rule, or a value that is no finite number.
    """
    if rule not in LABEL_RULES:
        raise ValueError(unknown_name("label rule", rule, LABEL_RULES))
    return LABEL_RULES[rule](value)


def check_label_rule(rule: str) -> None:
    """Refuses a rule that does not exist before a corpus is read with it.

    Raises:
        PipelineError: an unknown rule.
    """
    if rule not in LABEL_RULES:
        raise PipelineError(f"corpus.label_rule: {unknown_name('label rule', rule, LABEL_RULES)}")


def add_label(corpus: Corpus, clip_id: str, value: str, rule: str, where: str) -> None:
    """Gives a clip its label. A blank value is no label; one that the rule cannot read is reported.

    The clip itself stays either way: a clip without a label is clustered like any other and left out of the scores.
    """
    if not value.strip():
        return
    try:
        corpus.labels[clip_id] = apply_label_rule(value, rule)
    except ValueError as error:
        corpus.report("unreadable_label", where, f"clip {clip_id!r} is kept without its label: {error}")
