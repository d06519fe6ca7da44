"""A finished run, read from its folder alone: the model, and what its views were made by."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import load_settings
from pipeline.errors import PipelineError
from pipeline.reduce import RECIPE, encoders_in, load_reduction
from pipeline.reduction import Reduction

if TYPE_CHECKING:
    from tib import TIB


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, ready to predict.

    Attributes:
        reductions: by modality; none where the run was trained on features as they were.
        encoders: by modality, the recipe of the embeddings that were reduced.
    """

    folder: Path
    model: "TIB"
    reductions: dict[str, Reduction]
    encoders: dict[str, dict[str, Any]]


def load_run(folder: Path) -> Run:
    """Reads the model and the reduction of a run; its workdir is not needed.

    Raises:
        PipelineError: no such folder, a run that is not whole, or one that this code cannot load.
    """
    if not folder.is_dir():
        raise PipelineError(f"--run {folder}: no such folder; give the results folder of a finished run")
    needed = ("run.json", "config.yaml", "model.json", "model.safetensors")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise PipelineError(
            f"--run {folder}: no finished run here: {', '.join(missing)} missing; give the results folder of one, "
            "or run `train` first"
        )
    kept = folder / "reduction"
    if not (kept / RECIPE).exists() and load_settings(folder / "config.yaml").views is None:
        raise PipelineError(
            f"--run {folder}: the reduction of its views is not kept with it; run `train` again with the same config, "
            "which trains nothing twice and adds it"
        )
    from tib import TIB  # only now: it loads PyTorch, and a wrong folder should be told at once

    try:
        model = TIB.load(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"--run {folder}: cannot load its model: {error}") from None
    if not (kept / RECIPE).exists():
        return Run(folder, model, {}, {})
    return Run(folder, model, load_reduction(kept), encoders_in(kept))
