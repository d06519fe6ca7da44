"""Stages that are killed in the middle, again and again, and what they leave.

Each trial starts a stage in the same folder from the same state, kills it some times, and lets it end. Then the folder
must hold what an undisturbed run leaves there: the same clips, once each, with the same numbers.
"""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.fault_points import KILLING, at_write
from benchmarks.faults_left import differences, left, torn
from benchmarks.faults_place import Place, Undisturbed

KILLS_A_TRIAL = 5


def kills(
    place: Place,
    known: dict[str, Undisturbed],
    n: int,
    rng: np.random.Generator,
    *,
    points: Sequence[str] = KILLING,
    writes: int = 1000,
) -> dict[str, dict[str, int]]:
    """Kills at random moments, and some at points of a write: stage -> counts of what came of them.

    Args:
        known: the stages.
        n: kills at random, dealt out to the stages evenly.
        points: of a write.
        writes: kills at most at each point of a stage.
    """
    counts = {}
    for stage, of in known.items():
        found = Counter(_at_random(place, stage, of, round(n / len(known)), rng))
        found.update(_at_writes(place, stage, of, points, writes))
        counts[stage] = dict(found)
        print(f"kills: {stage}, {of.seconds:.1f} s undisturbed: {counts[stage]}", flush=True)
    return counts


def _at_random(place: Place, stage: str, of: Undisturbed, n: int, rng: np.random.Generator) -> Iterator[str]:
    done = 0
    while done < n:
        place.restore(of.before)
        for _ in range(min(KILLS_A_TRIAL, n - done)):
            process = place.start(stage)
            process.join(rng.uniform(0, of.seconds))
            if process.exitcode is not None:
                break  # it was done before
            process.kill()
            process.join()
            done += 1
            yield "killed at random"
            yield from (f"torn: {path}" for path in torn(place.trial))
        yield from _ends_well(place, stage, of)


def _at_writes(place: Place, stage: str, of: Undisturbed, points: Sequence[str], most: int) -> Iterator[str]:
    """At each of the points: killed at the first, taken up and killed at the second from there, and so on."""
    for point in points:
        place.restore(of.before)
        for nth in range(1, most + 1):
            if place.run(stage, fault=at_write(point, nth)).code != -signal.SIGKILL:
                break
            yield f"killed {point}"
            yield from (f"torn: {path}" for path in torn(place.trial))
        yield from _ends_well(place, stage, of)


def _ends_well(place: Place, stage: str, of: Undisturbed) -> Iterator[str]:
    ended = place.run(stage)
    if ended.code:
        yield f"exit code {ended.code}: {ended.last_line}"
    yield from differences(of.left, left(place.trial))
