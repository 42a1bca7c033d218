"""The starter corpus: real sampled sound and speech, composed into short clips whose truth is known.

Train and test share no soundfont, no voice and no recording. The choices of a question are drawn first, the answer
evenly among them, and only then the sound, so that the text alone says nothing about the answer.
"""

from sari_jax.corpus.sources.starter.build import build
from sari_jax.corpus.sources.starter.questions import texts

__all__ = ["build", "texts"]
