"""Errors that a person reads: one line that says what was expected, what came, and what to do."""


class PipelineError(Exception):
    """The command cannot run (exit code 2). The message is shown as it is, without a traceback."""
