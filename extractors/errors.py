"""Why a clip has no embedding: the fixed list of causes and the error that carries one."""

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
