"""Extraction on Ray Data, on one machine or many: chunks -> read -> an actor pool for each modality's encoder.

A reading actor has the same processes, under the same limits, as an extraction without Ray; an encoding actor writes
its part itself. So only small rows come back to the process that was started, which counts, shows and keeps the
failures. A chunk that was lost with its machine is made again, and replaces itself in the store.
"""

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from extractors.base import Extractor, PlainExtractor, Preparer
from extractors.clip import Clip
from pipeline.config import EngineSettings, ExtractSettings, Settings
from pipeline.console import say
from pipeline.encoders import EncoderSection, build, recipe_of
from pipeline.engines.jobs import Chunk, FailureLimit, Job, Told, chunks_of, in_turn
from pipeline.engines.plan import Plan, chunk_of
from pipeline.engines.pools import Machine, Pools, pools_of
from pipeline.engines.work import Encoder, Ready, begin_reading, embed, end_reading, prepare_here
from pipeline.errors import PipelineError
from pipeline.hardware import return_freed_memory, threads_of
from pipeline.ledger import Ledger
from pipeline.meters import meters
from pipeline.provenance import arithmetic, stable_hash
from pipeline.readers import Readers
from pipeline.sources import source_of
from pipeline.store import EmbeddingStore

LOOPBACK = "127.0.0.1"
KNOCK_S = 10.0
MAX_RESTARTS = 10  # of an actor: a chunk that always kills its process must end the run
_KEPT = "what was done is kept: run again to go on"
# Read by Ray when it is imported, and by what it starts.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of what goes to stderr; what matters comes as an exception
    "RAY_worker_niceness": "0",  # 15 is Ray's: next to any other work its networks would hardly be computed
}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else Ray takes the machine's address in the network


@dataclass(frozen=True, slots=True)
class Work:
    """A chunk on its way.

    Attributes:
        ready: what is read and not encoded yet.
        told: what came of the modalities that are through, with the conditions they were computed under.
    """

    chunk: Chunk
    ready: Ready | None = None
    told: tuple[tuple[Told, dict[str, Any]], ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an encoding actor makes its encoder from, and what that must turn out to be.

    Attributes:
        section: the modality's settings, with the precision that the driver chose.
        threads: of the network's arithmetic; None is the machine's cores over `beside`.
        beside: encoders of one modality on a machine.
    """

    modality: str
    section: EncoderSection
    store: EmbeddingStore
    preparer: Preparer
    threads: int | None
    beside: int

    def load(self) -> Extractor:
        """The encoder, as the store has it.

        Raises:
            PipelineError: it cannot be loaded here, or would make other numbers than the driver's.
        """
        extractor = build(self.modality, self.section)
        recipe = recipe_of(self.modality, self.section, extractor, keep_sequence=self.store.keeps_sequences)
        if stable_hash(recipe) != self.store.fingerprint:
            known = self.store.recipe
            other = ", ".join(name for name in recipe if recipe[name] != known.get(name))
            raise PipelineError(
                f"extract.{self.modality}: a Ray worker would embed otherwise than the machine that the run was "
                f"started on ({other}); install the same versions there, from one lock, and the same weights"
            )
        return extractor


class Read:
    """A reading actor."""

    def __init__(self, settings: ExtractSettings, preparers: Mapping[str, Preparer]) -> None:
        self._readers, self._preparers = Readers(settings), preparers
        self._readers.start()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        work = _work(row)
        wanted = [(clip, {name: self._preparers[name] for name in stamps}) for clip, stamps in work.chunk]
        return {"work": replace(work, ready=end_reading(self._readers, begin_reading(self._readers, wanted)))}


class Encode:
    """An encoding actor of one modality. What reads no media is prepared here too."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        torch.set_num_threads(recipe.threads or max(1, threads_of("auto") // recipe.beside))
        self._recipe, self._encoder = recipe, Encoder(recipe.modality, recipe.load(), recipe.store)
        return_freed_memory()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        work, modality = _work(row), self._recipe.modality
        ready = work.ready
        if ready is None:
            wanted = [(clip, {modality: self._recipe.preparer}) for clip, stamps in work.chunk if modality in stamps]
            ready = prepare_here(wanted)
        told = embed(self._encoder, work.chunk, ready)
        for _, outcome in ready:  # what is encoded goes no further
            outcome.pop(modality, None)
        made_with = {"pass": self._encoder.extractor.plan(), **arithmetic()}
        return {"work": replace(work, ready=ready, told=(*work.told, *([(told, made_with)] if told else [])))}


def _work(row: dict[str, Any]) -> Work:
    """What comes from the stage before, or from the plan."""
    work: Work = row["work"] if "work" in row else Work(chunk_of(row["chunk"]))
    return work


def run_on_ray(jobs: Sequence[Job], ledger: Ledger, settings: Settings, *, max_failures: int | None = None) -> None:
    """Embeds what is pending, as `local.run_jobs` does.

    Args:
        jobs: with their encoders loaded, accounted for in the ledger; the encoders are let go, as the actors load
            their own.
        max_failures: stop when more than so many clips have failed in this run.
    Raises:
        PipelineError: no cluster, one that has not what is asked of it, a machine in it that does not see the clips or
            the store, or Ray gave up.
    """
    limit = FailureLimit(max_failures)
    with (
        cluster(settings.engine) as machines,
        meters({job.modality: job.n_pending for job in jobs}, "extract") as bars,
    ):
        machines = _checked(machines, jobs, ledger)
        for group, first, size in in_turn(jobs, settings.extract):
            by_modality = {job.modality: job for job in group}
            with Plan(chunks_of(ledger.pending(list(by_modality)), first, size)) as plan:
                pools = pools_of(settings.engine, machines, len(group), plan.n_chunks, reads=group[0].reads_media)
                recipes = [_recipe(job, settings, pools) for job in group]
                how = "; ".join(f"{job.modality} {job.extractor.plan()}" for job in group if job.extractor)
                say(f"extract: {how}; on Ray, {len(machines)} machine{'s' * (len(machines) > 1)}: {pools}")
                dataset = _dataset(plan, recipes, pools, settings.extract)
                for job in group:
                    job.extractor = None
                    bars[job.modality].begin()
                return_freed_memory()
                for told, made_with in _rows(dataset):
                    job = by_modality[told.modality]
                    job.store.add_made_with(made_with)
                    job.take(told)
                    bars[job.modality].show(job.n_done, job.n_failed_now, job.n_units)
                    if limit.take(told):
                        return


@contextmanager
def cluster(engine: EngineSettings) -> Iterator[list[Machine]]:
    """Joins the cluster, or starts one on this machine that nobody else can reach; ends what it started.

    Yields:
        the machines that work, those with a CPU for Ray.
    Raises:
        PipelineError: Ray is not installed, no cluster there, or one that cannot be started.
    """
    local = engine.address == "local"
    os.environ.update({**ENVIRONMENT, **os.environ, **(ON_LOOPBACK if local else {})})
    ray = imported()
    joined_before = ray.is_initialized()
    if not joined_before:
        _join(engine.address)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if local and not joined_before and any(node["NodeManagerAddress"] != LOOPBACK for node in nodes):
            raise PipelineError(
                "Ray would listen on the network, as it was imported before `extract` could tell it not to; import it "
                "later, or set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Python starts"
            )
        machines = [_machine(node) for node in nodes if node["Resources"].get("CPU")]
        if not machines:
            raise PipelineError("no machine of the Ray cluster has a CPU for work; start workers with `ray start`")
        yield machines
    finally:
        if not joined_before:
            ray.shutdown()


def imported() -> Any:
    """The ray module, ray.data with it.

    Raises:
        PipelineError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PipelineError(
            f"engine.kind=ray needs Ray, which cannot be imported ({error}); install the extra, "
            "pip install 'tib-pipeline[ray]', or take engine.kind=local"
        ) from None
    return ray


def _join(address: str) -> None:
    ray = imported()
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, **quiet)
        else:
            _knock(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PipelineError(
            f"cannot join a Ray cluster at engine.address={address} ({reason}); start one (ray start --head), give the "
            "host:port of one, or set engine.address=local"
        ) from None


def _knock(address: str) -> None:
    """Whether anybody is at host:port: Ray would try for minutes. What is no such address is left to Ray.

    Raises:
        OSError: nobody is.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _machine(node: Mapping[str, Any]) -> Machine:
    has = node["Resources"]
    return Machine(node["NodeID"], node["NodeManagerAddress"], has["CPU"], has.get("GPU", 0.0))


def _checked(machines: Sequence[Machine], jobs: Sequence[Job], ledger: Ledger) -> list[Machine]:
    """The machines that answer. Each must see the same files at the same paths: the stores, and clips that are pending.

    Raises:
        PipelineError: one does not see them, or cannot load this project; or none answers.
    """
    ray = imported()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    stores = [job.store.folder for job in jobs]
    firsts = [next(ledger.pending([job.modality])) for job in jobs]
    seen = [(clip, modality, stamp) for _, clip, stamps in firsts for modality, stamp in stamps.items()]
    task = ray.remote(num_cpus=0)(unseen)
    asked = [
        (
            machine,
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node_id, soft=False)).remote(
                stores, seen
            ),
        )
        for machine in machines
    ]
    answered = []
    for machine, answer in asked:
        try:
            missing = ray.get(answer)
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            say(f"extract: the Ray worker {machine.address} has left the cluster; going on without it")
            continue
        except ray.exceptions.RayError as error:
            raise _given_up(error, f"the Ray worker {machine.address} cannot begin") from None
        if missing:
            raise PipelineError(
                f"the Ray worker {machine.address} does not see {missing} as this machine does; all machines need the "
                "clips and the workdir at the same paths, on a file system that they share (docs/ray.md)"
            )
        answered.append(machine)
    if not answered:
        raise PipelineError("no machine of the Ray cluster answers; look at `ray status`")
    return answered


def unseen(stores: Sequence[Any], seen: Sequence[tuple[Clip, str, str]]) -> str | None:
    """What this machine does not see of the stores' folders, and of clips with their stamps; None where it sees all."""
    for folder in stores:
        if not (folder / "recipe.json").is_file():
            return str(folder)
    return next((clip.media_path for clip, modality, source in seen if source_of(clip, modality) != source), None)


def _recipe(job: Job, settings: Settings, pools: Pools) -> Recipe:
    if job.extractor is None:
        raise ValueError(f"{job.modality}: the encoder must be loaded")
    section: EncoderSection = getattr(settings.extract, job.modality)
    if section.precision == "auto" and not isinstance(job.extractor, PlainExtractor):
        section = section.model_copy(update={"precision": job.extractor.precision})
    threads: int | None = None
    if not isinstance(settings.extract.threads, str):
        threads = settings.extract.threads
    elif not isinstance(settings.engine.cpus_per_encoder, str):
        threads = settings.engine.cpus_per_encoder
    return Recipe(job.modality, section, job.store, job.extractor.preparer, threads, pools.encoders_beside)


def _dataset(plan: Plan, recipes: Sequence[Recipe], pools: Pools, settings: ExtractSettings) -> Any:
    """The pipeline, nothing of it begun: a row a chunk, and a block, as what a part holds must not depend on Ray's."""
    ray = imported()
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # byte: no two rows fit into a block
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    preparers = {recipe.modality: recipe.preparer for recipe in recipes}
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        # max_restarts has no parameter of its own yet; without it a chunk that kills its process is tried for ever.
        # Tries of a chunk are not bounded: those at an actor whose machine just died fail by the hundred.
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        dataset = plan.dataset()
        if pools.readers:
            dataset = dataset.map(
                Read,
                fn_constructor_args=(settings, preparers),
                compute=ray.data.ActorPoolStrategy(size=pools.readers),
                num_cpus=pools.cpus_per_reader,
                max_restarts=MAX_RESTARTS,
                scheduling_strategy="SPREAD",
            )
        for recipe in recipes:
            dataset = dataset.map(
                Encode,
                fn_constructor_args=(recipe,),
                compute=ray.data.ActorPoolStrategy(size=pools.encoders),
                num_cpus=pools.cpus_per_encoder,
                num_gpus=0 if recipe.section.device == "cpu" else pools.gpus_per_encoder,
                max_restarts=MAX_RESTARTS,
                scheduling_strategy="SPREAD",
            )
    return dataset


def _rows(dataset: Any) -> Iterator[tuple[Told, dict[str, Any]]]:
    """What came of each modality of each chunk, as it comes; whoever takes no more of it ends the pipeline.

    Not by `iter_rows`, whose threads fetch ahead: they outlive a run that is stopped, and what they then ask of a Ray
    that has been shut down ends this process without a word.
    """
    ray = imported()
    from ray.data.block import BlockAccessor

    try:
        for bundle in dataset.iter_internal_ref_bundles():
            for block in ray.get(list(bundle.block_refs)):
                rows: Iterator[dict[str, Work]] = BlockAccessor.for_block(block).iter_rows(public_row_format=True)
                for row in rows:
                    yield from row["work"].told
    except Exception as error:
        raise _given_up(error, "Ray gave up") from None


def _given_up(error: BaseException, what: str) -> PipelineError:
    """The error that a person is told: a worker's own words where it had some."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, PipelineError):
        found = getattr(found, "cause", None) or found.__cause__
    if found is not None:
        return PipelineError(f"{found}; {_KEPT}")
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return PipelineError(f"{what}: {type(error).__name__}: {reason[:400]}; {_KEPT}")
