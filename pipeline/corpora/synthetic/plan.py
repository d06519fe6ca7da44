"""What each clip of the demo corpus is to be: its class, its person, and the cue that each modality shows.

The design of the data is the table CUES. No modality tells the seven classes apart: the face tells -3 from -2, -1 from
0 and 1 from 2 as little as a mild acquaintance would; the voice tells how stirred somebody is, not whether by joy or
by anger; the words are often shared by neighbours. Each pair of classes differs in at least two of the three. On top
of that, SLIP_RATES of the clips mislead in one modality (never in two): a neutral face on a happy clip, sarcasm.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.corpora.synthetic.people import Person, draw_cast
from pipeline.corpora.synthetic.script import ScriptWriter

LABELS = (-3, -2, -1, 0, 1, 2, 3)
N_PEOPLE = 24  # no multiple of 7, so that going round the cast mixes people and classes


@dataclass(frozen=True, slots=True)
class Cues:
    """What face, voice and words show; names as in acting.EXPRESSIONS, voice.STYLES and script.LINES."""

    face: str
    voice: str
    words: str


CUES: dict[int, Cues] = {
    -3: Cues("displeased", "charged", "scathing"),
    -2: Cues("displeased", "subdued", "critical"),
    -1: Cues("composed", "lively", "critical"),
    0: Cues("composed", "level", "factual"),
    1: Cues("pleased", "subdued", "factual"),
    2: Cues("pleased", "lively", "praising"),
    3: Cues("delighted", "charged", "praising"),
}
# The share of clips in which a modality shows something else than its table entry, and what that may be.
SLIP_RATES = {"face": 0.08, "voice": 0.10, "words": 0.18}
_FACE_SLIPS = {
    "displeased": ("composed",),
    "composed": ("displeased", "pleased"),
    "pleased": ("composed", "delighted"),
    "delighted": ("pleased",),
}
_VOICE_SLIPS = {
    "subdued": ("level",),
    "level": ("subdued", "lively"),
    "lively": ("level", "charged"),
    "charged": ("lively",),
}
_WORDS_SLIPS = {
    "scathing": ("sarcastic", "ambiguous"),
    "critical": ("sarcastic", "ambiguous"),
    "factual": ("ambiguous",),
    "praising": ("ambiguous",),
}


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """One clip to be made.

    Attributes:
        number: 1..N; the clip's own random generator comes from (seed, number).
        label: one of LABELS.
        person: who speaks.
        cues: what each modality shows, slips included.
        transcript: the words.
    """

    number: int
    label: int
    person: Person
    cues: Cues
    transcript: str

    @property
    def clip_id(self) -> str:
        return f"clip_{self.number:04d}"


def plan_clips(clips_per_class: int, seed: int) -> list[ClipPlan]:
    """The whole corpus on paper, in an order that says nothing of the class; people and classes are crossed evenly."""
    rng = np.random.default_rng(seed)
    cast = draw_cast(N_PEOPLE, rng)
    writer = ScriptWriter(rng)
    takes = [label for _ in range(clips_per_class) for label in LABELS]
    plans = []
    for number, index in enumerate(rng.permutation(len(takes)), start=1):
        label, person = takes[index], cast[index % N_PEOPLE]
        cues = _with_slips(CUES[label], rng)
        plans.append(ClipPlan(number, label, person, cues, writer.next_line(cues.words)))
    return plans


def _with_slips(cues: Cues, rng: np.random.Generator) -> Cues:
    which = rng.random()
    if which < SLIP_RATES["face"]:
        return Cues(str(rng.choice(_FACE_SLIPS[cues.face])), cues.voice, cues.words)
    if which < SLIP_RATES["face"] + SLIP_RATES["voice"]:
        return Cues(cues.face, str(rng.choice(_VOICE_SLIPS[cues.voice])), cues.words)
    if which < sum(SLIP_RATES.values()):
        return Cues(cues.face, cues.voice, str(rng.choice(_WORDS_SLIPS[cues.words])))
    return cues
