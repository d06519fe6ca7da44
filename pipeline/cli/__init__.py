"""The command line: one command a stage. Errors become one line and an exit code; the stages know nothing of it.

Exit codes: 0 all done; 1 some clips failed, the rest is done and saved; 2 the command could not run; 130 stopped by
Ctrl-C, 143 by SIGTERM; 141 whoever read the output has gone.
"""

import io
import os
import sys

import typer

from pipeline import console
from pipeline.cli.commands import app
from pipeline.cli.session import CANNOT
from pipeline.errors import PipelineError

SCRIPT = "tib-pipeline"  # what pyproject.toml installs; no shell completes a `python -m`

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line and exits; what is wrong with the words themselves is one line on stderr."""
    # PyTorch's threads spin while they wait for each other. On a machine that has other work to do that made training
    # 3-9 times slower than letting them sleep (docs/performance.md). Read when PyTorch loads, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a clip's name may have what this terminal has not
    completes = any(word in sys.argv for word in ("--install-completion", "--show-completion"))
    try:
        code = app(standalone_mode=False, prog_name=SCRIPT if completes else None)
    except (PipelineError, typer.Abort) as error:
        _refuse(str(error))
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's usage errors say what is wrong
            raise
        _refuse(error.format_message() or "no stage was given")
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> None:
    told = " ".join(message.split())
    console.error(f"error: {told}")
    if "--json" in sys.argv:  # whoever reads it wants an object in any case
        print(console.as_json({"exit_code": CANNOT, "error": told}))
    sys.exit(CANNOT)
