"""What of a corpus is embedded, failed and left to do, in a table on disk: no clip is held, whatever their number."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from extractors.clip import Clip
from pipeline.errors import PipelineError
from pipeline.failures import Failure
from pipeline.joins import ClipStore, ClipTable
from pipeline.sources import stamps_of

Clips = Callable[[], Iterable[Clip]]  # the corpus in its order, anew each time it is called
Stamps = dict[str, str]  # modality -> stamp of what there is to embed (pipeline/sources.py)


class Ledger:
    """The clips of a corpus against the stores of its modalities. A context manager; holds a folder on disk.

    The stamps are those of the moment it was made, so that whoever embeds a clip writes down what was asked for.
    """

    def __init__(self, clips: Clips, modalities: Sequence[str]) -> None:
        """Looks at every clip once.

        Raises:
            PipelineError: two clips with one id, or a manifest that cannot be read.
        """
        self.clips = clips
        self._table = ClipTable(stamped(clips(), modalities), modalities)
        self.n_clips = self._table.n_clips

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *of_an_error: object) -> None:
        self._table.close()

    def account(
        self, modality: str, store: ClipStore | None, *, retry_failed: bool = False, trust_old: bool = False
    ) -> tuple[int, int]:
        """Looks through a store, for `pending` and `failures` to tell of.

        Args:
            store: None where nothing was begun.
            retry_failed: what failed before and has not changed since is pending.
            trust_old: what failed before counts as failed where the file cannot be looked at now.
        Returns:
            how many clips are pending, and how many have failed as they are now.
        Raises:
            PipelineError: a part that cannot be read.
        """
        return self._table.account(modality, store, retry_failed=retry_failed, trust_old=trust_old)

    def pending(self, modalities: Sequence[str]) -> Iterator[tuple[int, Clip, Stamps]]:
        """What is to be embedded in any of these modalities, each accounted for.

        Yields:
            (row of the clip in the corpus, clip, modality -> stamp), in the corpus' order.
        Raises:
            PipelineError: the clips are others than when they were looked at.
        """
        numbered = enumerate(self.clips())
        for row, clip_id, stamps in self._table.pending(modalities):
            clip = next((clip for number, clip in numbered if number == row), None)
            if clip is None or clip.clip_id != clip_id:
                raise PipelineError(f"the manifest has changed since it was read: expected clip {clip_id!r}; run again")
            yield row, clip, stamps

    def failures(self, modality: str) -> Iterator[Failure]:
        """The newest failure of each clip that has failed as it is now, in the order they came."""
        for batch in self._table.failures(modality):
            yield from (Failure(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))


def stamped(clips: Iterable[Clip], modalities: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The clips as `ClipTable` takes them: clip_id, and what each modality's embedding would be made from now."""
    return ((clip.clip_id, stamps_of(clip, modalities)) for clip in clips)
