"""How many actors read and encode on a Ray cluster, and what each of them may take: numbers in, numbers out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import EngineSettings
from pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Machine:
    """What one machine of the cluster offers Ray."""

    node_id: str
    address: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Pools:
    """The actors of one pipeline.

    Attributes:
        readers: that read and decode, 0 where nothing is read.
        encoders: of each modality.
        cpus_per_reader, cpus_per_encoder, gpus_per_encoder: what each is counted as; Ray places them by it.
        encoders_beside: encoders of one modality on a machine, which share its cores.
    """

    readers: int
    encoders: int
    cpus_per_reader: float
    cpus_per_encoder: float
    gpus_per_encoder: float
    encoders_beside: int

    def __str__(self) -> str:
        gpus = f", {self.gpus_per_encoder:g} GPU each" if self.gpus_per_encoder else ""
        return f"{self.readers} readers, {self.encoders} encoders a modality{gpus}"


def pools_of(
    engine: EngineSettings, machines: Sequence[Machine], n_modalities: int, n_chunks: int, *, reads: bool
) -> Pools:
    """The pools for a cluster. What is `auto` fills it: a reader and an encoder of each modality on every machine.

    Args:
        n_modalities: that go through together.
        n_chunks: there are; more actors would have nothing to do.
        reads: whether media are read.
    Raises:
        PipelineError: the cluster has not what the settings ask for.
    """
    n, cpus, gpus = len(machines), [m.cpus for m in machines], sum(m.gpus for m in machines)
    gpu = engine.gpus_per_encoder
    if isinstance(gpu, str):
        gpu = _usable(1 / n_modalities) if gpus else 0.0
    encoders = engine.encoders
    if isinstance(encoders, str):
        encoders = max(1, math.floor(gpus / (gpu * n_modalities) + 1e-6)) if gpu else n
    readers = (n if isinstance(engine.readers, str) else engine.readers) if reads else 0
    readers, encoders = min(readers, n_chunks), min(encoders, n_chunks)
    here = math.ceil((readers + encoders * n_modalities) / n)  # actors a machine
    # Half of it where there are several, so that those of a lost machine find room on the others; Ray waits otherwise.
    each = _usable(min(cpus) / here / min(n, 2))
    encoder_cpus = float(engine.cpus_per_encoder) if engine.cpus_per_encoder != "auto" else each
    left = _usable(max((sum(cpus) - encoders * n_modalities * encoder_cpus) / readers, 0.01)) if readers else 0.0
    pools = Pools(readers, encoders, min(each, left), encoder_cpus, gpu, math.ceil(encoders / n))
    _check(pools, n_modalities, machines)
    return pools


def _usable(amount: float) -> float:
    """As Ray takes it: a whole number, or a part of one."""
    return float(math.floor(amount)) if amount >= 1 else math.floor(amount * 100) / 100


def _check(pools: Pools, n_modalities: int, machines: Sequence[Machine]) -> None:
    """Ray would wait for ever for what no machine has."""
    n_encoders = pools.encoders * n_modalities
    asked = {
        "CPUs": (
            max(pools.cpus_per_encoder, pools.cpus_per_reader),
            n_encoders * pools.cpus_per_encoder + pools.readers * pools.cpus_per_reader,
            [machine.cpus for machine in machines],
        ),
        "GPUs": (pools.gpus_per_encoder, n_encoders * pools.gpus_per_encoder, [machine.gpus for machine in machines]),
    }
    for what, (one, every, there) in asked.items():
        if one > max(there) or every > sum(there) + 1e-6:
            raise PipelineError(
                f"the Ray cluster has {sum(there):g} {what}, {max(there):g} on one machine at most; {n_encoders} "
                f"encoders and {pools.readers} readers need {every:g}, one of them {one:g}; lower engine.encoders, "
                f"engine.readers, engine.cpus_per_encoder or engine.gpus_per_encoder"
            )
