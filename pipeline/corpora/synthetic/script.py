"""The words of the demo corpus: short film reviews from a sentiment lexicon, and how they fall into syllables."""

import re
from dataclasses import dataclass
from itertools import product

import numpy as np

_SCATHING = ("terrible", "horrible", "awful", "dreadful", "disgusting", "atrocious")
_CRITICAL = ("disappointing", "boring", "dull", "weak", "slow", "tedious")
_PRAISING = ("wonderful", "amazing", "brilliant", "fantastic", "beautiful", "excellent")

# Templates of a cue, and what goes into their gap; a line without a gap is used as it is.
LINES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "scathing": (
        (
            "I hated it, it was {}, truly the worst.",
            "A truly {} film, I hated every minute.",
            "It is {}, the worst thing I have ever seen.",
            "This {} movie made me angry, I hate it.",
            "Absolutely {}, I walked out in disgust.",
            "The worst movie of the year, just {}.",
        ),
        _SCATHING,
    ),
    "critical": (
        (
            "It was a bit {}, I expected more.",
            "The story is rather {}, and it drags.",
            "Kind of {}, I got bored half way through.",
            "I found the plot {}, it did not work for me.",
            "The second half is {}, I lost interest.",
            "Not very good, the script is quite {}.",
        ),
        _CRITICAL,
    ),
    "factual": (
        (
            "It comes out {}, and it runs for two hours.",
            "They filmed it in Chicago {}.",
            "It is set in a small town, and it opens {}.",
            "The director also wrote it, it is showing {}.",
            "My brother and I went to see it {}.",
            "It is about two sisters, it starts {}.",
        ),
        ("on Friday", "in March", "this week", "at seven", "last year", "in the summer"),
    ),
    "praising": (
        (
            "I loved it, it was {} from start to end.",
            "A truly {} film, I loved every minute.",
            "It is {}, one of the best I have ever seen.",
            "This {} movie made me happy, I love it.",
            "Absolutely {}, go and see it, you will love it.",
            "The best movie of the year, just {}.",
        ),
        _PRAISING,
    ),
    "sarcastic": (
        (
            "Oh {}, another sequel, just what we needed.",
            "{}, two hours of my life I will not get back.",
            "Well {}, I could have stayed at home.",
            "Oh sure, {}, give them all a prize.",
        ),
        ("great", "lovely", "wonderful", "brilliant"),
    ),
    "ambiguous": (
        (
            "Well, that happened, and I was there for it.",
            "You really have to see it to believe it.",
            "I have never seen anything like it before.",
            "I did not see that coming, not at all.",
            "So that was it, that was the whole film.",
            "I do not know what to say about this one.",
            "They certainly went for it, I will say that.",
            "It is a lot, it really is a lot.",
            "That ending, though, what can I say.",
            "I have been thinking about it all day.",
            "Everyone is going to talk about this one.",
            "It is exactly what you think it will be.",
            "I had to sit there for a while, after that.",
            "You know what, it is one of those films.",
        ),
        (),
    ),
}
_VOWELS = "aeiouy"


class ScriptWriter:
    """Hands out the lines of a cue in a random order; none comes twice before all were used."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._left: dict[str, list[str]] = {}

    def next_line(self, cue: str) -> str:
        """The next line of `cue`, a key of LINES."""
        if not self._left.get(cue):
            lines = all_lines(cue)
            self._left[cue] = [lines[i] for i in self._rng.permutation(len(lines))]
        return self._left[cue].pop()


def all_lines(cue: str) -> list[str]:
    """Every line that a cue can give."""
    templates, fillers = LINES[cue]
    lines = [t.format(f) for t, f in product(templates, fillers)] if fillers else list(templates)
    return [line[0].upper() + line[1:] for line in lines]


@dataclass(frozen=True, slots=True)
class Syllable:
    """A consonant (the last before the vowel; "" is none), a vowel letter, and whether a pause follows."""

    consonant: str
    vowel: str
    ends_phrase: bool


def syllables(transcript: str) -> list[Syllable]:
    """Roughly how English letters are spoken: a syllable per group of vowels, a silent final e left out."""
    found = []
    for word in re.findall(r"[a-z']+[,.]?", transcript.lower()):
        stem = re.sub(r"[^a-z]", "", word)
        if len(stem) > 3 and stem.endswith("e") and stem[-2] not in _VOWELS:
            stem = stem[:-1]
        groups = re.findall(rf"([^{_VOWELS}]*)([{_VOWELS}]+)", stem)
        for i, (consonants, vowels) in enumerate(groups):
            last = i == len(groups) - 1 and word[-1] in ",."
            found.append(Syllable(consonants[-1:], vowels[0], last))
    return found
