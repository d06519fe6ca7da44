"""One clip for all the extractors that want it: its file read once, each modality's failure its own."""

from collections.abc import Mapping

from extractors.base import Prepared, Preparer
from extractors.clip import Clip
from extractors.errors import ExtractionError, as_extraction_error
from extractors.media import Media, MediaNeeds, read_media

Outcome = dict[str, Prepared | ExtractionError]


def prepare_clip(clip: Clip, preparers: Mapping[str, Preparer]) -> Outcome:
    """Reads a clip once and prepares it for each modality; whatever goes wrong is a value, nothing is raised.

    Args:
        preparers: modality -> its preparer.
    Returns:
        modality -> network input, or why there is none.
    """
    needs = MediaNeeds.union(preparer.needs for preparer in preparers.values())
    try:
        media = read_media(clip, needs) if needs != MediaNeeds() else Media()
    except Exception as error:  # a decoder's surprise belongs to the clip, not to the run
        return dict.fromkeys(preparers, as_extraction_error("read", error))
    outcome: Outcome = {}
    for modality, preparer in preparers.items():
        try:
            outcome[modality] = preparer.prepare(clip, media)
        except Exception as error:
            outcome[modality] = as_extraction_error("prepare", error)
    return outcome
