"""What the report shows, as plain values: gathered by this package's Python, laid out by its template and script.

Rows are the N clips shown, 0 .. N-1, in the order of assignments.csv; K clusters are numbered as there; M modalities
are in the project's order. None stands for what is not known. Text is raw: whoever puts it on a page escapes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Headline:
    """What a person wants first.

    Attributes:
        n_clips, n_clusters, n_clusters_used: counts; n_clusters is K as asked or proposed.
        confidence: mean over clips of the fused posterior's maximum, 0..1.
        n_unsure: clips below `unsure_below`.
        stability: mean ARI between clusters that restarts found on other bags of clips; None of one restart.
        n_restarts: networks trained side by side.
        agreement: mean share of a clip's modalities that alone say the same cluster, 0..1.
        sentences: what the figures mean, in plain words; each one sentence, the most important first.
        warnings: what the reader must know before believing anything (untrained encoders, no labels, few clips).
    """

    n_clips: int
    n_clusters: int
    n_clusters_used: int
    confidence: float
    n_unsure: int
    unsure_below: float
    stability: float | None
    n_restarts: int
    agreement: float
    sentences: Sequence[str]
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True)
class Score:
    """A row of the score table: ACC, NMI, ARI in 0..1 (ARI from -0.5), sd over restarts or seeds, None of one value."""

    method: str
    acc: float
    acc_sd: float | None
    nmi: float
    nmi_sd: float | None
    ari: float
    ari_sd: float | None
    n_clusters_used: float
    kind: str  # ours | restarts | baseline | majority


@dataclass(frozen=True, slots=True)
class Clips:
    """The clips, a column each, N long.

    Attributes:
        clip_id, cluster, confidence, agreement: as in assignments.csv.
        label: ground truth, None where unknown.
        transcript: "" where there is none.
        by_modality: modality -> the cluster it alone would choose, None where the clip lacks it.
        thumbnail: a data: URI of the clip's middle frame, "" where there is none.
        media: URL of the clip's media, relative to the page or a data: URI; "" where there is none. With a media
            fragment (#t=start,end) where the clip is a span of the file.
        media_kind: "video", "audio" or "" as the URL's element; "file" where browsers cannot play it: a plain link.
        duration_s: None where unknown.
        pitch_hz, loudness_db, words_per_s: of the voice, None where unknown.
        silhouette: of the clip in the space of all views, -1..1; None where not computed.
    """

    clip_id: Sequence[str]
    cluster: Sequence[int]
    confidence: Sequence[float]
    agreement: Sequence[float]
    label: Sequence[str | None]
    transcript: Sequence[str]
    by_modality: Mapping[str, Sequence[int | None]]
    thumbnail: Sequence[str]
    media: Sequence[str]
    media_kind: Sequence[str]
    duration_s: Sequence[float | None]
    pitch_hz: Sequence[float | None]
    loudness_db: Sequence[float | None]
    words_per_s: Sequence[float | None]
    silhouette: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class ClipMap:
    """A plane of the clips: name ("PCA", "t-SNE", "UMAP"), coordinates (N,) each, and a line on what it shows."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    note: str


@dataclass(frozen=True, slots=True)
class Word:
    """A word that is more frequent here than elsewhere: log-odds with an informative prior, as a z-score.

    n_here and n_elsewhere count the clips that say it.
    """

    word: str
    z: float
    n_here: int
    n_elsewhere: int


@dataclass(frozen=True, slots=True)
class Voice:
    """A property of the voice in a cluster against all clips: name, unit, medians, and in sds of all clips."""

    name: str  # pitch | loudness | speaking rate
    unit: str  # Hz | LUFS | words/s
    here: float
    whole: float
    sds: float  # (mean here - mean of all) / sd of all
    n_clips: int


@dataclass(frozen=True, slots=True)
class ModalityInCluster:
    """How a modality stands in a cluster.

    Attributes:
        n_clips: that have the modality.
        agree: share of them that it alone would put here too, 0..1.
        others_add_bits: mean KL(p(cluster | all) || p(cluster | this modality)) in bits: what it lacks that the
            others add (complementarity); 0 is nothing.
        elsewhere: cluster it most often chooses instead, None where it always agrees.
    """

    modality: str
    n_clips: int
    agree: float
    others_add_bits: float
    elsewhere: int | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A card.

    `size` is of all clips, `n_shown` of those on the page. `typical` and `least_sure` are rows of clips, best first;
    `labels` is (label, clips), most first.
    """

    cluster: int
    size: int
    n_shown: int
    confidence: float
    agreement: float
    silhouette: float | None
    typical: Sequence[int]
    least_sure: Sequence[int]
    words: Sequence[Word]
    voice: Sequence[Voice]
    modalities: Sequence[ModalityInCluster]
    labels: Sequence[tuple[str, int]]
    n_labelled: int
    summary: str  # one sentence: what sets it apart, in words


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that failed or was left out of a modality: `cause` is from a short list, `detail` the message."""

    clip_id: str
    modality: str
    stage: str
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything on the page.

    Attributes:
        name: of the run.
        scores: the table, ours first; empty without labels.
        n_scored: clips with a label.
        maps: PCA first.
        clusters: the largest first; only those in use.
        confusion: {"labels": [...], "clusters": [...], "counts": [[...]]}, a row a label; None without labels.
        history: term -> a value a step, `loss` last; None where a term was not in use at that step.
        restarts: {"loss": [...], "ari": [...] to the run's clusters, "acc": [...] or None}, a value a restart.
        curve: K -> stability, of `--clusters auto`; empty otherwise.
        silhouette: view or "all" -> mean over clips, -1..1.
        failures: clips that failed or were skipped.
        counts: (what, modality, clips): the accounts, so that manifest = done + failed + skipped for each modality.
        provenance: (group, name, value) in order: settings, seeds, versions, weights with checksums and licences.
        config: the resolved settings as YAML.
        commands: what makes it again, each a line for a shell.
        made: date and time, UTC.
    """

    name: str
    headline: Headline
    scores: Sequence[Score]
    n_scored: int
    clips: Clips
    modalities: Sequence[str]
    maps: Sequence[ClipMap]
    clusters: Sequence[Cluster]
    confusion: Mapping[str, Any] | None
    history: Mapping[str, Sequence[float | None]]
    restarts: Mapping[str, Any]
    curve: Mapping[int, float]
    silhouette: Mapping[str, float]
    failures: Sequence[Failure]
    counts: Sequence[tuple[str, str, int]]
    provenance: Sequence[tuple[str, str, str]]
    config: str
    commands: Sequence[str]
    made: str

    def for_script(self) -> dict[str, Any]:
        """What the page's script draws from, ready for JSON."""
        whole = asdict(self)
        names = ("clips", "modalities", "maps", "confusion", "history", "restarts", "curve", "silhouette", "n_scored")
        return {name: whole[name] for name in names}
