"""RAVDESS: acted speech and song in `Actor_<n>/<seven codes>.mp4` and `.wav`; the codes say everything."""

import re
from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.recordings import Recording, add_recordings, media_paths
from pipeline.corpora.scan import check_root, is_media, refuse_empty, walk

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # codes 01 to 08
SENTENCES = ("Kids are talking by the door", "Dogs are sitting by the door")  # codes 01 and 02
_SILENT = "02"  # the modality of a picture without its sound; 01 has both, 03 is the sound alone
# modality, then what the recording is: channel (speech, song), emotion, intensity, sentence, repetition, actor
_NAME = re.compile(r"(0[1-3])-(0[12]-0([1-8])-0[12]-0([12])-0[12]-([01]\d|2[0-4]))")


def read_ravdess(root: Path) -> Corpus:
    """Reads RAVDESS, unpacked: video or audio, speech or song, whatever is there.

    A recording is published up to three times: with picture and sound (01-...), its picture alone (02-...) and its
    sound alone (03-...). It is one clip, taken from the first there is of 01, 03 and 02. Its id is the file's name
    without extension, its video the actor. Folders are of no matter, nor is a second copy of a file.

    Args:
        root: the folder that holds Actor_01, Actor_02, ..., at any depth.
    Returns:
        A clip for each recording, with its sentence and, as its label, the emotion acted.
    Raises:
        PipelineError: root cannot be read, or holds no file so named.

    Source: Livingstone and Russo 2018, The Ryerson Audio-Visual Database of Emotional Speech and Song.
    """
    check_root(root)
    tree = walk(root)
    corpus = Corpus(root, problems=list(tree.folders))
    recordings = []
    for path in media_paths(tree):
        name = PurePosixPath(path).stem
        found = _NAME.fullmatch(name)
        if found is None:
            message = "expected a name of RAVDESS' seven codes, as 01-01-05-01-02-01-12.mp4"
            corpus.report("unreadable_row", path, message)
            continue
        modality, recording, emotion, sentence, actor = found.groups()
        clip = CorpusClip(name, path, transcript=SENTENCES[int(sentence) - 1], video=f"Actor_{actor}")
        recordings.append(Recording(recording, _rank(path, modality), clip, EMOTIONS[int(emotion) - 1]))
    add_recordings(corpus, tree, recordings)
    refuse_empty(corpus, "Actor_<n>/<modality>-<six more codes>.mp4 or .wav")
    corpus.sort()
    return corpus


def _rank(path: str, modality: str) -> int:
    if modality == _SILENT:
        return 2
    return 0 if is_media(path) else 1
