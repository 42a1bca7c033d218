"""The starter corpus: short clips composed of real sampled sounds and speech, with questions whose answer is known.

Train and test share no soundfont, no voice and no recording. The choices of a question are drawn first, then the
answer, evenly among them, and then the sounds. So the text alone gives no answer away.
"""

from sari_jax.corpus.sources.starter.build import build
from sari_jax.corpus.sources.starter.questions import texts

__all__ = ["build", "texts"]
