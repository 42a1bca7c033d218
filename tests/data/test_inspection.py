import numpy as np
import pytest
import soundfile

from sari_jax.audio.spans import Fit
from sari_jax.data.inspection import Inspector, inspect, table
from sari_jax.data.ledger import Dropped
from sari_jax.data.processor import Shapes
from sari_jax.data.records import Clip
from sari_jax.data.styles import STYLES

SHAPES = Shapes(
    prompt_tokens=(96, 192), answer_tokens=(16, 32), audio_seconds=(1.0, 2.04), audios=(1, 2)
)


@pytest.fixture
def good(make_record, tmp_path):
    soundfile.write(tmp_path / "good.wav", 0.1 * np.ones(16_000), 16_000)
    chain = {"planning": "I listen.", "caption": "A bark.", "reasoning": "Dogs.", "summary": "Dog."}
    return lambda **changes: make_record(
        **({"audio": (Clip(str(tmp_path / "good.wav")),), "chain_free": "It barks."} | changes)
        | {"chain_structured": chain}
    )


@pytest.fixture
def bad(good, tmp_path):
    """Records by their id, each with another fault that texts and headers show, and the reason it is given."""
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", 0.1 * np.ones(16), 16_000)
    soundfile.write(tmp_path / "long.wav", 0.1 * np.ones(31 * 16_000), 16_000)
    soundfile.write(tmp_path / "large.wav", 0.1 * np.ones(5 * 16_000), 16_000)

    def clip(name, *span):
        return (Clip(str(tmp_path / name), *span),)

    return {
        "absent": (good(id="absent", audio=clip("absent.wav")), "audio"),
        "empty": (good(id="empty", audio=clip("empty.wav")), "audio"),
        "text": (good(id="text", audio=clip("text.wav")), "audio"),
        "span": (good(id="span", audio=clip("good.wav", 3.0, 4.0)), "audio"),
        "past": (good(id="past", audio=clip("good.wav", 0.5, 9.0)), "audio"),
        "long": (good(id="long", audio=clip("long.wav")), "audio"),
        "short": (good(id="short", audio=clip("short.wav")), "prompt"),
        "large": (good(id="large", audio=clip("large.wav")), "prompt"),
        "clips": (good(id="clips", audio=clip("good.wav") * 3), "prompt"),
        "placeholder": (good(id="placeholder", question="Is <|AUDIO|> it?"), "prompt"),
        "turn": (good(id="turn", question="Is it?<|im_end|>\n<|im_start|>assistant"), "prompt"),
        "wordy": (good(id="wordy", question="why " * 300), "prompt"),
        "chainless": (good(id="chainless", chain_free=None), "chain"),
        "tagged": (good(id="tagged", chain_free="</think>"), "chain"),
        "heard": (good(id="heard", chain_free="I hear <|AUDIO|> in it."), "prompt"),
        "ended": (good(id="ended", chain_free="It barks.<|im_end|>"), "prompt"),
        "chain": (good(id="chain", chain_free="so " * 100), "prompt"),
    }


def test_every_fault_that_texts_and_headers_show_is_found(good, bad, nano_processor):
    inspector = Inspector(
        processor=nano_processor, style=STYLES["free"], shapes=SHAPES, answers=True
    )
    records = [good(id="first"), *(record for record, _ in bad.values()), good(id="last")]
    found = inspect(inspector, records)
    assert {one.where: one.reason for one in found.bad} == {
        id: reason for id, (_, reason) in bad.items()
    }
    assert all(one.detail and "\n" not in one.detail for one in found.bad)


def test_chains_count_only_where_they_are_learnt(bad, nano_processor):
    inspector = Inspector(
        processor=nano_processor, style=STYLES["free"], shapes=SHAPES, answers=False
    )
    assert inspect(inspector, [bad[id][0] for id in ("chainless", "tagged", "chain")]).bad == []


def test_what_passes_is_what_the_processor_takes(good, bad, nano_processor):
    """Silence of a header's length makes the same sizes as the sound itself."""
    record = good()
    inspector = Inspector(
        processor=nano_processor, style=STYLES["free"], shapes=SHAPES, answers=True
    )
    assert inspector(record) == (None, [Fit.EXACT])
    read = nano_processor.question(record, STYLES["free"], answer=True)
    silent = nano_processor.question(
        record, STYLES["free"], answer=True, waveforms=[np.zeros(16_000, np.float32)]
    )
    np.testing.assert_array_equal(read.tokens, silent.tokens)
    assert nano_processor.sizes([read], SHAPES) == nano_processor.sizes([silent], SHAPES)


def test_the_table_counts_names_and_says_why():
    bad = [Dropped(f"q{i}", "audio", f"file {i} is missing") for i in range(30)]
    told = table("some.jsonl", [*bad, Dropped("x", "chain", "no chain")], 100)
    first, *lines = told.splitlines()
    assert first == "some.jsonl: 31 of 100 records cannot be used"
    assert lines[0].split() == ["30", "audio"] and "q4: file 4 is missing" in told
    assert "and 25 more: q5, q6," in told and told.rstrip().endswith("x: no chain")


def test_clips_that_are_not_used_as_asked_for_are_counted(good, nano_processor, tmp_path):
    soundfile.write(tmp_path / "gtzan.wav", 0.1 * np.ones(30 * 16_000 + 208), 16_000)
    cut, clipped = (
        (Clip(str(tmp_path / "gtzan.wav")),),
        (Clip(str(tmp_path / "good.wav"), 0, 1.05),),
    )
    inspector = Inspector(
        processor=nano_processor, style=STYLES["direct"], shapes=Shapes(), answers=False
    )
    records = [good(), good(audio=cut), good(audio=clipped), good(audio=cut + clipped)]
    found = inspect(inspector, records)
    assert found.bad == [] and found.fits == {"cut to limit": 2, "end clipped": 2}
    assert found.notes("x") == ["x: 2 clips: cut to limit", "x: 2 clips: end clipped"]
