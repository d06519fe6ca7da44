"""How far an extraction is, modality by modality: clips done, failed and in all, how fast, how long still."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from pipeline.console import progress

# What a clip's n_units are to a person: how many make one of what is named.
_RATES = {"visual": (1, "frames/s"), "text": (1, "tokens/s"), "audio": (100, "times real time")}


class Meter:
    """One modality's bar. Its clock starts when its clips come up, so that its ETA is not another modality's."""

    def __init__(self, modality: str, bar: "tqdm[Any]") -> None:
        self._bar = bar
        self._units, self._named = _RATES[modality]
        self._n_shown = 0

    def begin(self) -> None:
        """The modality's turn has come."""
        self._bar.reset()

    def advance(self, n_clips: int) -> None:
        """So many more clips went through the network."""
        self._bar.update(n_clips)

    def show(self, n_done: int, n_failed: int, n_units: int) -> None:
        """What is written and failed by now, in all; corrects what was counted on the way."""
        elapsed_s = self._bar.format_dict["elapsed"]
        rate = n_units / self._units / elapsed_s if elapsed_s else 0.0
        told = [f"{rate:.1f} {self._named}", f"{n_failed} failed" if n_failed else ""]
        self._bar.set_postfix_str(", ".join(filter(None, told)), refresh=False)
        self._bar.update(n_done + n_failed - self._bar.n)


@contextmanager
def meters(pending: Mapping[str, int], what: str) -> Iterator[dict[str, Meter]]:
    """A bar for each modality, one below the other.

    Args:
        pending: modality -> clips to embed.
        what: stands before each bar.
    """
    bars = {
        modality: progress(n_clips, f"{what} {modality}", "clip", position=row)
        for row, (modality, n_clips) in enumerate(pending.items())
    }
    try:
        for bar in bars.values():
            bar.refresh()
        yield {modality: Meter(modality, bar) for modality, bar in bars.items()}
    finally:
        for bar in bars.values():
            bar.close()
