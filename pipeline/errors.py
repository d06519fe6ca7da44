"""Errors that a person reads: one line that says what was expected, what came, and what to do."""

MAX_MESSAGE = 1500  # characters; what to do stands at the end, so that the middle is what is left out


class PipelineError(Exception):
    """The command cannot run (exit code 2). The message is shown as it is, without a traceback.

    Whatever a file put into it, it is one line that can be read.
    """

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))


def readable(message: str) -> str:
    """The message on one line, without the middle of what is too long to be read."""
    line = message if len(message.splitlines()) < 2 else " ".join(message.split())
    if len(line) <= MAX_MESSAGE:
        return line
    return f"{line[: MAX_MESSAGE // 2]} [...] {line[-MAX_MESSAGE // 2 :]}"
