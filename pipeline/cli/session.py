"""One command from its first line to its exit code: what is shown, the log, and what is said when it ends badly."""

import errno
import math
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml

from pipeline import console
from pipeline.cli import stop
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.lock import only_writer
from pipeline.logs import Log, Tee
from pipeline.provenance import environment

DONE, SOME_FAILED, CANNOT, PIPE_CLOSED = 0, 1, 2, 141

# What a stage leaves when it is stopped in the middle; what there was before is as it was.
KEPT = {
    "prepare": "an earlier manifest; one is written when it is whole",
    "transcribe": "every transcript that was made",
    "pretrain-audio": "the clips' feature maps and the last checkpoint, at most half a minute old",
    "compact": "every embedding; whoever writes there next ends what was begun",
    "reduce": "the embeddings; the reduction starts again",
    "train": "the views, an earlier run, and the last checkpoint, at most half a minute old",
    "evaluate": "the run; its scores are worked out again",
    "report": "the run and its scores",
    "predict": "what was embedded of the new clips",
    "rerun": "the run itself, and what was embedded for the rerun",
    "export": "what the folder held before",
    "import": "what the folder held before",
}


# What the system says of a disk -> what it kept the command from.
_OF_A_DISK = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS), "write") | dict.fromkeys(
    (errno.EACCES, errno.EPERM), "read or write"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a command ends with.

    Attributes:
        values: what --json prints, worked out when it is asked for.
        lines: what --quiet prints, from the values.
        code: 0 all done, 1 some clips failed.
    """

    values: Callable[[], dict[str, Any]]
    lines: Callable[[Mapping[str, Any]], list[str]]
    code: int = DONE


class Session:
    """What a command has of its surroundings.

    Args:
        stage: the command's name.
        quiet, verbose, as_json: see the command line's help.
    """

    def __init__(self, stage: str, *, quiet: bool, verbose: bool, as_json: bool) -> None:
        self.stage = self.command = stage
        self.settings: Settings | None = None
        self._quiet, self._verbose, self._as_json = quiet, verbose, as_json
        self._log = Log(stage)
        self._started = time.monotonic()
        self._stdout = sys.stdout
        self._stack = ExitStack()  # of what is held until the command ends
        self._held: set[Path] = set()

    def use(self, settings: Settings) -> Settings:
        """Tells the session the settings, once they are known; from here on there is a log."""
        self.settings = settings
        cached_features_alone = settings.views is not None and settings.workdir is None
        self.log_in(settings.results if cached_features_alone else settings.work)
        return settings

    def log_in(self, workdir: Path) -> None:
        """Says where the log goes, for a command that works with a finished run's settings."""
        self._log.belongs_to(workdir, self._header)

    def hold(self, folder: Path) -> None:
        """Lets no other command write in a folder until this one ends; one that is not there yet is not made.

        Raises:
            PipelineError: another one is at work there.
        """
        if folder.is_dir() and folder.resolve() not in self._held:
            self._stack.enter_context(only_writer(folder))
            self._held.add(folder.resolve())

    @contextmanager
    def doing(self, stage: str) -> Iterator[None]:
        """Names the part that a command of several is at."""
        self.stage, started = stage, time.monotonic()
        yield
        console.detail(f"{stage}: took {time.monotonic() - started:.1f} s")

    def run(self, work: Callable[["Session"], Result]) -> int:
        """Does the work and returns the exit code; every error becomes a line."""
        with self._stack as stack:
            stack.callback(self._log.close)
            stack.enter_context(redirect_stdout(Tee(sys.stderr if self._as_json else sys.stdout, self._log)))
            stack.enter_context(redirect_stderr(Tee(sys.stderr, self._log)))
            shown = console.Output(quiet=self._quiet, verbose=self._verbose, unseen=self._log.line)
            stack.enter_context(console.output(shown))
            stack.enter_context(warnings.catch_warnings())
            warnings.showwarning = self._warn
            code = self._guarded(work)
            self._log.line(f"exit code {code} after {time.monotonic() - self._started:.1f} s")
        return code

    def _guarded(self, work: Callable[["Session"], Result]) -> int:
        try:
            with stop.stoppable(self._say_forced):
                result = work(self)
                self._deliver(result)
            return result.code
        except stop.Stopped as stopped:
            self._say_stopped(stopped.signum)
            stop.exit_now(stopped.signum)  # threads that still decode would hold up a slower end
            raise
        except BrokenPipeError as error:  # `| head` has seen enough
            self._log.traceback_of(error)
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())  # for what is still to be flushed
            return PIPE_CLOSED
        except PipelineError as error:
            return self._fail(str(error), error)
        except OSError as error:  # a full disk, a file in the way of a folder
            return self._fail(_refused_by_system(error), error)
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())
            return self._fail(f"unexpected error in stage {self.stage}: {told}", error, unexpected=True)

    def _warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """A warning is a line; one that was not written for users is for --verbose."""
        tell = console.error if issubclass(category, UserWarning) else console.detail
        tell(f"warning: {' '.join(str(message).split())}")
        self._log.line(f"{category.__name__} of {filename}:{lineno}")

    def _deliver(self, result: Result) -> None:
        values = result.values() if self._quiet or self._as_json else {}
        if self._quiet:
            for line in result.lines(values):
                console.result(line)
        if self._as_json:
            self._print_json({"exit_code": result.code, **values})

    def _fail(self, message: str, error: Exception, *, unexpected: bool = False) -> int:
        path = self._log.keep() if unexpected else self._log.path
        if self._verbose or (unexpected and path is None):
            for line in "".join(traceback.format_exception(error)).splitlines():  # which is in the log too then
                print(console.printable(line), file=sys.stderr)
        else:
            self._log.traceback_of(error)
        if unexpected and path:
            message += f"; the traceback is in {path}; please report it"
        console.error(message if unexpected else f"error: {message}")
        if self._as_json:
            self._print_json({"exit_code": CANNOT, "error": message})
        return CANNOT

    def _say_forced(self, signum: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # off the line of a bar that nobody closes
        self._say_stopped(signum)

    def _say_stopped(self, signum: int) -> None:
        by = f"stopped by {stop.SIGNALS[signum]} in {self.stage}"
        console.error(f"{by}; kept: {self._kept()}")
        console.error(f"go on with: {command_line(*sys.argv[1:])}")
        self._log.line(f"exit code {stop.exit_code(signum)} after {time.monotonic() - self._started:.1f} s")
        if self._as_json:
            self._print_json({"exit_code": stop.exit_code(signum), "error": by})

    def _kept(self) -> str:
        if self.stage != "extract" or self.settings is None:
            return KEPT.get(self.stage, "every file that is there, each of them whole")
        from pipeline.cli.results import embeddings_kept

        return embeddings_kept(self.settings)

    def _print_json(self, values: Mapping[str, Any]) -> None:
        whole = {
            "stage": self.command,
            **values,
            "seconds": round(time.monotonic() - self._started, 3),
            "log": str(self._log.path) if self._log.path else None,
        }
        self._stdout.write(console.as_json(_plain(whole)) + "\n")
        self._stdout.flush()

    def _header(self) -> str:
        made_with = environment()
        packages = " ".join(f"{name} {version}" for name, version in made_with["packages"].items())
        settings = self.settings.model_dump(mode="json") if self.settings else {}
        return (
            f"command: {made_with['command']}\n"
            f"python {made_with['python']}, {made_with['platform']}, commit {made_with['git_sha']}\n"
            f"{packages}\n\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}\n"
        )


def command_line(*words: str) -> str:
    """A command of this program, as a shell takes it: by the same Python, with these words."""
    if Path(sys.argv[0]).name != "__main__.py":
        return shlex.join([sys.argv[0], *words])
    python = Path(sys.executable)
    inside = python.is_relative_to(Path.cwd())
    return shlex.join([str(python.relative_to(Path.cwd()) if inside else python), "-m", "pipeline", *words])


def _plain(value: Any) -> Any:
    """As strict JSON has it: no NaN, no paths."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _refused_by_system(error: OSError) -> str:
    """An error of the system's in words, with what to do where that is known."""
    if error.errno == errno.ENOENT and "temporary directory" in str(error):  # Python's own words
        return f"{error.strerror}; set TMPDIR to a folder that may be written"
    if error.errno not in _OF_A_DISK or error.filename is None:
        return str(error)
    kept_from = f"cannot {_OF_A_DISK[error.errno]} {error.filename}: {error.strerror}"
    return f"{kept_from}; free some space, or choose a folder that may be written"
