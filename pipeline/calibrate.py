"""The int8 form of the visual encoder: calibrated on the corpus' own frames, checked on other clips' frames.

    <workdir>/quantised/<settings>/model.xml, model.bin    the network
    <workdir>/quantised/<settings>/record.json             what it was made on, and its cosine with fp32

It is made once, by `extract`. A run that is resumed, and one that finds more clips, goes on with the same network, so
that all embeddings of a workdir are of one space.
"""

import math
import shutil
import tempfile
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from extractors.base import Prepared
from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.preparing import prepare_clip
from pipeline.config import Settings, VisualSettings
from pipeline.console import say
from pipeline.encoders import build
from pipeline.errors import PipelineError
from pipeline.files import check_writable
from pipeline.hardware import threads_of
from pipeline.ledger import Ledger
from pipeline.provenance import stable_hash, versions
from pipeline.readers import Readers

if TYPE_CHECKING:
    from extractors.visual_frames import FrameExtractor

MAX_FRAMES, HELD_OUT_FRAMES = 300, 64  # to calibrate on; to measure on
FRAMES_A_CLIP = 8  # at most
HELD_OUT_EVERY = 6  # clips
MIN_CLIPS = 2
LOW_COSINE = 0.99


def calibrate_if_wanted(settings: Settings, ledger: Ledger, readers: Readers) -> None:
    """Makes the int8 network where the settings ask for one of this corpus' own and there is none yet.

    Args:
        ledger: of the corpus. Frames are taken from clips spread evenly over it, every sixth held out.
    Raises:
        PipelineError: it cannot be made: too few clips with a picture, a package that is missing, a full disk.
    """
    visual = settings.extract.visual
    if visual is None or not settings.uses_own_int8 or settings.own_int8.is_file():
        return
    import torch  # only now, as it takes seconds

    check_writable(settings.own_int8.parents[1])
    torch.set_num_threads(threads_of(settings.extract.threads))
    plain = visual.in_torch().model_copy(update={"device": "cpu", "precision": "fp32"})
    extractor = cast("FrameExtractor", build("visual", plain))
    prepared = _prepared(extractor, _spread(ledger, plain), readers)
    calibrated_on = [item for index, item in enumerate(prepared) if index % HELD_OUT_EVERY]
    _make(settings.own_int8.parent, extractor, calibrated_on, held_out=prepared[::HELD_OUT_EVERY])


def _spread(ledger: Ledger, visual: VisualSettings) -> list[Clip]:
    """As many clips as give the frames that are wanted, evenly over all."""
    a_clip = min(visual.frames_per_clip or FRAMES_A_CLIP, FRAMES_A_CLIP)
    n = min(ledger.n_clips, math.ceil((MAX_FRAMES + HELD_OUT_FRAMES) / a_clip))
    chosen = {i * ledger.n_clips // n for i in range(n)}
    return [clip for row, clip in enumerate(ledger.clips()) if row in chosen]


def _prepared(extractor: "FrameExtractor", clips: Sequence[Clip], readers: Readers) -> list[Prepared]:
    """Their frames, as the network gets them; clips without are left out: `extract`, which follows, tells why."""
    outcomes = readers.map(prepare_clip, clips, repeat({"visual": extractor.preparer}, len(clips)))
    items = [outcome["visual"] for outcome in outcomes if not isinstance(outcome, ExtractionError)]
    found = [item for item in items if isinstance(item, Prepared)]
    if len(found) < MIN_CLIPS:
        raise PipelineError(
            "extract.visual.precision=int8 is calibrated on frames of some clips and checked on those of others: it "
            f"needs {MIN_CLIPS} clips with a picture, and found {len(found)}; take bf16"
        )
    return found


def _pieces(prepared: Sequence[Prepared]) -> list[Any]:
    """Their crops, (3, S, S) uint8; of a clip with many, FRAMES_A_CLIP evenly."""
    taken = []
    for item in prepared:
        n = min(len(item.inputs), FRAMES_A_CLIP)
        taken += [item.inputs[i * len(item.inputs) // n] for i in range(n)]
    return taken


def _make(
    folder: Path, extractor: "FrameExtractor", calibrated_on: Sequence[Prepared], held_out: Sequence[Prepared]
) -> None:
    from extractors import openvino_network

    pieces, others = _pieces(calibrated_on)[:MAX_FRAMES], _pieces(held_out)[:HELD_OUT_FRAMES]
    say(
        f"extract: visual: calibrating int8 on {len(pieces)} frames of {len(calibrated_on)} clips, once; takes minutes "
        "for a large network"
    )
    try:
        model = openvino_network.quantise(
            extractor.network,
            extractor.preparer.preprocessing.crop,
            pieces,
            lambda piece: extractor.images(*extractor.collate([piece])),
        )
    except ValueError as error:
        raise PipelineError(f"extract.visual: {error}") from None
    batches = [others[start : start + FRAMES_A_CLIP] for start in range(0, len(others), FRAMES_A_CLIP)]
    images = [extractor.images(*extractor.collate(batch)) for batch in batches]
    cosines = openvino_network.cosines(extractor.network, model, images)
    found = {"least": round(min(cosines), 6), "mean": round(sum(cosines) / len(cosines), 6)}
    record = {
        "calibrated_on": {
            "clips": len(calibrated_on),
            "frames": len(pieces),
            "clip_ids": stable_hash([item.clip_id for item in calibrated_on]),
        },
        "cosine_with_fp32": {**found, "clips": len(held_out), "frames": len(others)},
        "versions": versions(("nncf", "openvino")),
        "weights": extractor.weights_record,
    }
    _write(folder, model, record)
    told = f"cosine with fp32 {found['mean']:.4f}, least {found['least']:.4f}, over {len(others)} frames of other clips"
    say(f"extract: visual: int8: {told}")
    if found["mean"] < LOW_COSINE:
        say("extract: visual: int8 changes what this network sees; precision bf16 is closer to fp32")


def _write(folder: Path, model: Any, record: dict[str, Any]) -> None:
    """The folder appears whole or not at all."""
    from extractors.openvino_network import save_quantised

    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            save_quantised(model, made, record)
            shutil.rmtree(folder, ignore_errors=True)  # one that somebody took a file out of
            made.rename(folder)
    except (OSError, RuntimeError) as error:  # OpenVINO's own writing fails with the latter
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise PipelineError(f"cannot write {folder}: {reason}; free some space, or choose another workdir") from error
