"""Processes that read clips, so that a file can do no more than fail: not hang, crash or fill the memory of a run."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from extractors.errors import ExtractionError
from pipeline.config import ExtractSettings
from pipeline.errors import PipelineError
from pipeline.hardware import threads_of
from pipeline.reader_process import settle_in

if TYPE_CHECKING:
    from pebble import ProcessPool

MAX_WORKERS = 16
P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """A pool of processes that work on one clip at a time, each under a limit of time and memory.

    A process that is killed or ends of itself is replaced. They are forked from a server of their own, not from this
    process, whose threads a fork would leave behind.

    Args:
        settings: decode_workers, clip_time_limit_s and clip_memory_gb.
    """

    def __init__(self, settings: ExtractSettings) -> None:
        self.n_workers = threads_of(settings.decode_workers, MAX_WORKERS)
        self._time_limit_s, self._memory_gb = settings.clip_time_limit_s, settings.clip_memory_gb
        self._pool: ProcessPool | None = None
        self._first: Future[int]

    def __enter__(self) -> "Readers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()

    def start(self) -> "ProcessPool":
        """Begins to start them, where that has not been done; the first is ready in a second or less."""
        if self._pool is None:
            from pebble import ProcessPool  # not before something is read

            method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            context = multiprocessing.get_context(method)
            context.set_forkserver_preload(["pipeline.reader_server"])
            self._pool = ProcessPool(
                self.n_workers, initializer=settle_in, initargs=(self._memory_gb,), context=context
            )
            self._first = self._pool.schedule(os.getpid)  # the pool waits for a task
        return self._pool

    def wait_until_ready(self) -> None:
        """Until the first process can read."""
        self.start()
        self.result(self._first)

    def submit(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> "Future[T]":
        """Queues a call; function, arguments and result must be such as can be pickled."""
        future: Future[T] = self.start().schedule(function, arguments, named, timeout=self._time_limit_s)
        return future

    def map(self, function: Callable[..., T], *arguments: Iterable[Any]) -> "Iterator[T | ExtractionError]":
        """As the builtin map, a call a clip; what `result` would raise of a clip is a value."""
        futures = [self.submit(function, *each) for each in zip(*arguments, strict=True)]
        for future in futures:
            try:
                yield self.result(future)
            except ExtractionError as error:
                yield error

    def result(self, future: "Future[T]") -> T:
        """What the call returned, waiting for it.

        Raises:
            ExtractionError: it took too long, or its process ended: cause "timeout" or "crashed".
            PipelineError: the pool itself is gone.
        """
        from pebble import ProcessExpired

        try:
            return future.result()
        except TimeoutError:
            told = f"not read within {self._time_limit_s:g} s; cut the clip shorter or raise extract.clip_time_limit_s"
            raise ExtractionError("read", "timeout", told) from None
        except ProcessExpired as error:
            told = f"the process that read it ended with {error.exitcode}; re-encode the file, or replace it"
            raise ExtractionError("read", "crashed", told) from None
        except BrokenProcessPool as error:
            raise PipelineError(
                f"the processes that read clips cannot be kept alive ({error}); what was done is kept: free some "
                "memory and run again"
            ) from None
