"""What clips are made of: there, audible, in tune, and never both in train and in test."""

import gc
import sys
import weakref

import numpy as np
import pytest

from sari_jax import assets
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.corpus.sources.starter.material import (
    EFFECTS,
    INSTRUMENTS,
    PHRASES,
    RECORDED_EFFECTS,
    RECORDED_EVENTS,
    SPLITS,
    TEST,
    TRAIN,
    WORDS,
    Material,
)
from sari_jax.errors import InputError


@pytest.fixture(scope="module", params=[TRAIN, TEST], ids=["train", "test"])
def material(request):
    return Material(request.param)


def test_train_and_test_share_no_source():
    assert not TRAIN.names & TEST.names
    assert not SPLITS["validation"].names & TEST.names
    for sources in (TRAIN, TEST):
        assert len(set(sources.voices)) == len(sources.voices)
        assert {sources.soundfont, sources.recordings, sources.speaker} - {
            None
        } <= assets.ASSETS.keys()


def audible(samples: np.ndarray) -> bool:
    return (
        samples.dtype == np.float32
        and samples.ndim == 1
        and 0.05 < np.sqrt(np.mean(samples[:4000] ** 2)) < 0.5
    )


def test_every_instrument_and_effect_is_heard(material):
    for family in INSTRUMENTS:
        for variant in range(2):
            assert audible(material.instrument(family, 60, 0.4, variant)), family
    for name in EFFECTS:
        for variant in (0, 1, 3):
            samples, source = material.effect(name, variant)
            assert np.abs(samples).max() > 0.3 and source in material.sources.names, name
            assert len(samples) <= SAMPLE_RATE


@pytest.mark.tools
def test_every_recording_is_there_and_short(material):
    recordings = material.sources.recordings
    stems = [
        *RECORDED_EVENTS[recordings],
        *(s for found in RECORDED_EFFECTS[recordings].values() for s in found),
    ]
    for stem in stems:
        samples = material.recording(stem)
        assert 0.02 < len(samples) / SAMPLE_RATE <= 0.9, stem
        np.testing.assert_allclose(np.abs(samples).max(), 0.5, rtol=0.5)
    assert RECORDED_EFFECTS[recordings].keys() <= EFFECTS.keys()


@pytest.mark.parametrize("key", [57, 69, 76])
def test_notes_are_in_tune(material, key):
    samples = material.instrument("flute", key, 1.0, 0)[: SAMPLE_RATE // 2]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
    peak = np.argmax(spectrum) * SAMPLE_RATE / (1 << 17)
    octaves = np.log2(peak / (440 * 2 ** ((key - 69) / 12)))
    assert (
        abs(octaves - round(octaves)) < 1 / 24
    )  # of the note or, where that is stronger, of an overtone


def test_events_and_words_name_their_source(material):
    found = {material.event(variant)[1] for variant in range(6)}
    assert found == {material.sources.soundfont, material.sources.recordings}
    voices = {material.word("one", variant)[1] for variant in range(24)}
    assert voices <= material.sources.names
    assert (material.sources.speaker in voices) == bool(material.sources.speaker)


def test_what_is_rendered_is_kept(material):
    assert material.note(0, 60, 0.4) is material.note(0, 60, 0.4)
    assert material.word("red", 1) is material.word("red", 1)


def test_two_materials_give_the_same_bits():
    first, second = Material(TRAIN), Material(TRAIN)
    for make in (
        lambda m: m.note(73, 60, 0.4),
        lambda m: m.note(None, 38, 0.4),
        lambda m: m.note(124, 60, 0.9),
        lambda m: m.note(73, 64, 0.4),
        lambda m: m.word("blue", 6)[0],
        lambda m: m.phrase("bonjour mon ami", "fr", 9)[0],
        lambda m: m.recording("coin1"),
    ):
        np.testing.assert_array_equal(make(first), make(second))


def test_a_material_ends_with_its_corpus():
    """Or each would hold its soundfont in memory for good."""
    material = Material(TRAIN)
    material.note(0, 60, 0.2)
    gone = weakref.ref(material)
    del material
    gc.collect()
    assert gone() is None


def test_the_vocabulary_has_no_doubles():
    assert len(set(WORDS)) == len(WORDS)
    phrases = [phrase for _, said in PHRASES.values() for phrase in said]
    assert len(set(phrases)) == len(phrases)


def test_without_the_renderer(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(InputError, match="pip install --no-deps tinysoundfont"):
        Material(TRAIN).note(0, 60, 0.2)
