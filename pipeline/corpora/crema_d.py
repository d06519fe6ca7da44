"""CREMA-D: acted speech in `<actor>_<sentence>_<emotion>_<level>.flv` and `.wav`; the name says everything."""

import re
from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.recordings import Recording, add_recordings, media_paths
from pipeline.corpora.scan import check_root, is_media, refuse_empty, walk

SENTENCES = {
    "DFA": "Don't forget a jacket",
    "IEO": "It's eleven o'clock",
    "IOM": "I'm on my way to the meeting",
    "ITH": "I think I have a doctor's appointment",
    "ITS": "I think I've seen this before",
    "IWL": "I would like a new alarm clock",
    "IWW": "I wonder what this is about",
    "MTI": "Maybe tomorrow it will be cold",
    "TAI": "The airplane is almost full",
    "TIE": "That is exactly what happened",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
# The level is LO, MD, HI or XX (not told); one file, 1040_ITH_SAD_X, has a letter of it alone.
_NAME = re.compile(rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_(?:LO|MD|HI|XX?)")


def read_crema_d(root: Path) -> Corpus:
    """Reads CREMA-D as it is distributed: VideoFlash, AudioWAV, AudioMP3, any of them.

    A clip is taken from its video, else from its WAV file, else from its MP3. Its id is the name without extension, its
    video the actor. That a clip has no sound (1076_MTI_SAD_XX has none) is seen when it is embedded, not here.

    Args:
        root: the folder that holds VideoFlash and its like, at any depth.
    Returns:
        A clip for each name, with the sentence said and, as its label, the emotion acted.
    Raises:
        PipelineError: root cannot be read, or holds no file so named.

    Source: Cao et al. 2014, CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, and its repository's README.
    """
    check_root(root)
    tree = walk(root)
    corpus = Corpus(root, problems=list(tree.folders))
    recordings = []
    for path in media_paths(tree):
        name = PurePosixPath(path).stem
        found = _NAME.fullmatch(name)
        if found is None:
            message = "expected a name <actor>_<sentence>_<emotion>_<level> of CREMA-D's, as 1001_IEO_ANG_HI"
            corpus.report("unreadable_row", path, message)
            continue
        actor, sentence, emotion = found.groups()
        clip = CorpusClip(name, path, transcript=SENTENCES[sentence], video=actor)
        recordings.append(Recording(name, _rank(path), clip, EMOTIONS[emotion]))
    add_recordings(corpus, tree, recordings)
    refuse_empty(corpus, "VideoFlash/<actor>_<sentence>_<emotion>_<level>.flv, or the same in AudioWAV")
    corpus.sort()
    return corpus


def _rank(path: str) -> int:
    if is_media(path):
        return 0
    return 2 if path.lower().endswith(".mp3") else 1
