"""Sources of corpora: each has one file, and one line here. The starter corpus, which is generated, stands apart."""

from sari_jax.corpus.sources import (
    audiomcq,
    audioset,
    avqa,
    clotho_aqa,
    cota,
    echoink,
    jsonl,
    meld,
    musicbench,
    r1aqa,
    swift,
)

SOURCES = {
    source.name: source
    for source in (
        avqa.SOURCE,
        musicbench.SOURCE,
        audioset.SOURCE,
        meld.SOURCE,
        clotho_aqa.SOURCE,
        audiomcq.SOURCE,
        cota.SOURCE,
        r1aqa.SOURCE,
        swift.SOURCE,
        echoink.SOURCE,
        jsonl.SOURCE,
    )
}
