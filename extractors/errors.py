"""What can go wrong: a clip that has no embedding, with its cause; weights that cannot be had."""

CAUSES = (
    "missing_file",
    "permission_denied",
    "empty_file",
    "undecodable",
    "no_video_stream",
    "no_audio_stream",
    "too_short",
    "missing_transcript",
    "empty_transcript",
    "not_finite",
    "out_of_memory",
    "timeout",
    "crashed",
    "unexpected",
)


class ExtractionError(Exception):
    """One clip failed in one modality: a row of failures.csv, never a crash.

    Args:
        stage: where it broke: "read", "prepare" or "encode".
        cause: one of CAUSES.
        message: what was expected, what came, what to do; one line.

    Raises:
        ValueError: a cause that is not in CAUSES.
    """

    def __init__(self, stage: str, cause: str, message: str) -> None:
        if cause not in CAUSES:
            raise ValueError(f"unknown cause {cause!r}; known: {', '.join(CAUSES)}")
        super().__init__(message)
        self.stage = stage
        self.cause = cause
        self.message = message

    def __reduce__(self) -> tuple[type["ExtractionError"], tuple[str, str, str]]:
        """Pickles with its three parts, so that it survives the way back from another process."""
        return ExtractionError, (self.stage, self.cause, self.message)


# Of PyTorch's allocator on a GPU and on the CPU; of cuBLAS and cuDNN, which allocate for themselves.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_alloc_failed")


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. PyTorch's errors on the CPU, and some of CUDA's, are told apart by their words alone."""
    told = str(error).lower()
    return isinstance(error, MemoryError) or any(words in told for words in _OUT_OF_MEMORY)


def as_extraction_error(stage: str, error: Exception) -> ExtractionError:
    """Any exception as a clip's failure in this stage; one that is a clip's failure already, as it is."""
    if isinstance(error, ExtractionError):
        return error
    if is_out_of_memory(error):
        todo = "cut the clip shorter" + ("" if stage == "encode" else ", or raise extract.clip_memory_gb")
        return ExtractionError(stage, "out_of_memory", f"needs more memory than it may have; {todo}")
    return ExtractionError(stage, "unexpected", f"{type(error).__name__}: {' '.join(str(error).split())}")


class WeightsError(Exception):
    """The weights of an extractor cannot be had: one line that says what to do. Stops the command, not one clip."""
