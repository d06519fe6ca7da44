"""The demo's own corpus: drawn faces, a synthesised voice and sentences from templates, in seven sentiment classes.

corpus.py writes it; plan.py decides what each clip shows; script.py has the words, voice.py the sound, people.py,
face.py, acting.py and scene.py the picture; mux.py the mp4.
"""

from pipeline.corpora.synthetic.corpus import speakers, write_synthetic_corpus

__all__ = ["speakers", "write_synthetic_corpus"]
