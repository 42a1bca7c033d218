import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile
from transformers import AutoProcessor

from sari_jax.data.processor import (
    END,
    END_OF_TEXT,
    MIN_SAMPLES,
    STRIDE,
    Processor,
    Shapes,
)
from sari_jax.data.records import Clip
from sari_jax.data.styles import STYLES, question_text
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.models.encoder import LOOKAHEAD, frame_counts
from sari_jax.parallel import hosts

RATE = 16_000
AUDIO = "<|AUDIO|>"
DIRECT, STRUCTURED = STYLES["direct"], STYLES["structured"]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def processor(nano_processor):
    return nano_processor


@pytest.fixture
def encode(processor):
    """Clip lengths in samples -> an example that asks about them."""

    def encode(*sizes: int, text: str = "What is heard?"):
        clips = [noise(size, seed) for seed, size in enumerate(sizes)]
        return processor.encode(processor.prompt_text(text, len(clips)), clips)

    return encode


# The prompt.


def test_prompt_text_is_the_directorys_template(processor):
    clip = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    head, tail = "<|im_start|>user\n", "What?<|im_end|>\n<|im_start|>assistant\n"
    assert processor.prompt_text("What?", 0) == head + tail
    assert processor.prompt_text("What?", 1) == f"{head}Audio 1: {clip}\n{tail}"
    assert processor.prompt_text("What?", 2) == f"{head}Audio 1: {clip}\nAudio 2: {clip}\n{tail}"


@pytest.mark.parametrize(
    "sizes",
    [(MIN_SAMPLES,), (RATE,), (20_001, 47_999), (30 * RATE, 700), (640, 641, 642)],
    ids=str,
)
def test_tokens_are_those_of_transformers(nano_dir, processor, encode, sizes):
    """Its processor expands each placeholder by a count of its own."""
    example = encode(*sizes)
    theirs = AutoProcessor.from_pretrained(nano_dir)(
        text=example.text, audio=list(example.waveforms), sampling_rate=RATE, return_tensors="np"
    )
    np.testing.assert_array_equal(example.tokens, theirs["input_ids"][0])
    assert (example.tokens == processor.audio_id).sum() == sum(
        frame_counts(size)[1] for size in sizes
    )
    assert example.tokens.dtype == np.int32


def test_a_question_is_read_from_disk(processor, make_record, tmp_path):
    waveform = noise(RATE)
    soundfile.write(tmp_path / "dog.wav", waveform, RATE, subtype="FLOAT")
    clips = (Clip(str(tmp_path / "dog.wav"), 0.25, 0.5), Clip(str(tmp_path / "dog.wav")))
    record = make_record(audio=clips)
    example = processor.question(record, STRUCTURED, index=7, answer=True)
    np.testing.assert_array_equal(example.waveforms[0], waveform[4000:8000])
    np.testing.assert_array_equal(example.waveforms[1], waveform)
    asked = question_text(record.question, record.choices, STRUCTURED)
    assert example.text == processor.prompt_text(asked, 2)
    assert (example.record, example.index) == (record, 7)
    assert processor.tokenizer.decode(example.answer) == STRUCTURED.render(record) + END
    assert example.answer[-1] == processor.end_ids[0]
    assert processor.question(record, STRUCTURED).answer is None


# What it refuses.


def test_a_clip_over_30_seconds(processor, make_record, encode, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(30 * RATE + 1601), RATE)
    with pytest.raises(
        InputError, match=r"long.wav: 30.1 s is longer than the limit of 30 s; split it"
    ):
        processor.question(make_record(audio=(Clip(str(path)),)), DIRECT)
    with pytest.raises(
        InputError,
        match=r"clip 1: 30.0 s is longer than the limit of 30 s; split it",
    ):
        encode(30 * RATE + 1)
    whole = processor.question(make_record(audio=(Clip(str(path), end=30.0),)), DIRECT)
    assert (whole.tokens == processor.audio_id).sum() == 750


def test_a_clip_without_a_frame(encode):
    with pytest.raises(
        InputError,
        match=r"clip 2: 0.020 s is shorter than the minimum of 0.021 s; give a longer clip",
    ):
        encode(RATE, MIN_SAMPLES - 1)
    assert frame_counts(MIN_SAMPLES)[1] == 1 and frame_counts(MIN_SAMPLES - 1)[1] == 0


def test_a_placeholder_typed_in_the_question(processor, make_record, tmp_path):
    soundfile.write(tmp_path / "dog.wav", noise(RATE), RATE)
    record = make_record(audio=(Clip(str(tmp_path / "dog.wav")),), question=f"Is {AUDIO} a dog?")
    with pytest.raises(
        InputError, match=r"has 2 <\|AUDIO\|> placeholders for 1 clips; take the placeholder out"
    ):
        processor.question(record, DIRECT)


@pytest.mark.parametrize(("given", "told"), [(0, "1 .* for 0"), (2, "1 .* for 2")])
def test_as_many_clips_as_placeholders(processor, given, told):
    with pytest.raises(InputError, match=f"the prompt has {told} clips"):
        processor.encode(processor.prompt_text("What?", 1), [noise(RATE)] * given)


def test_a_missing_audio_file(processor, make_record):
    with pytest.raises(InputError, match="absent.wav: no such sound file"):
        processor.question(make_record(audio=(Clip("absent.wav"),)), DIRECT)


# Batches.


@pytest.mark.parametrize(
    ("samples", "seconds"),
    [
        (MIN_SAMPLES, 2),
        (2 * RATE - LOOKAHEAD, 2),
        (2 * RATE - LOOKAHEAD + 1, 4),  # its last frames look at the silence behind it
        (2 * RATE, 4),
        (8 * RATE, 30),
        (30 * RATE, 30),  # the tower ends here, there is nothing to look at
    ],
)
def test_the_smallest_length_of_audio_that_fits(processor, encode, samples, seconds):
    shapes = Shapes(audio_seconds=(2, 4, 8, 30))
    batch = processor.collate([encode(MIN_SAMPLES), encode(samples)], shapes)
    assert batch.prompts.waveforms.shape == (2, 1, seconds * RATE)


def test_a_length_is_cut_to_whole_frames(processor, encode):
    batch = processor.collate([encode(RATE)], Shapes(audio_seconds=(1.99,)))
    assert batch.prompts.waveforms.shape[2] == round(1.99 * RATE / STRIDE) * STRIDE


@pytest.mark.parametrize(("clips", "slots"), [(1, 1), (2, 2), (3, 4)])
def test_the_smallest_number_of_clips_that_fits(processor, encode, clips, slots):
    batch = processor.collate([encode(RATE), encode(*[RATE] * clips)], Shapes(audios=(1, 2, 4)))
    assert batch.prompts.waveforms.shape[1] == slots
    assert batch.prompts.samples[0].tolist() == [RATE] + [0] * (slots - 1)


def test_the_smallest_prompt_that_fits(processor, encode):
    example = encode(RATE)
    size = len(example.tokens)
    for buckets, expected in [((size, 512), size), ((size - 1, 512), 512)]:
        batch = processor.collate([example], Shapes(prompt_tokens=buckets))
        assert batch.prompts.tokens.shape == (1, expected)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (
            Shapes(prompt_tokens=(4, 8)),
            r"\d+ prompt tokens are more than 8, the largest of data.shapes.prompt_tokens",
        ),
        (
            Shapes(answer_tokens=(2,)),
            r"\d+ answer tokens are more than 2, the largest of data.shapes.answer_tokens",
        ),
        (
            Shapes(audios=(1,)),
            r"2 clips in a prompt are more than 1, the largest of data.shapes.audios",
        ),
        (
            Shapes(audio_seconds=(0.5, 1.0)),
            r"a clip of 1.0 s does not fit data.shapes.audio_seconds = \(0.5, 1.0\)",
        ),
    ],
)
def test_what_no_size_fits(processor, encode, shapes, told):
    example = dataclasses.replace(encode(RATE, RATE), answer=processor.tokens("one two three"))
    with pytest.raises(InputError, match=f"{told}.*add a larger"):
        processor.collate([example], shapes)


def test_a_batch_row_by_row(processor, encode):
    one, two = encode(RATE), encode(20_000, 30_000, text="Which of the two is the louder one?")
    prompts = processor.collate([one, two], Shapes()).prompts
    for row, example in enumerate((one, two)):
        size = len(example.tokens)
        assert prompts.lengths[row] == size
        np.testing.assert_array_equal(prompts.tokens[row, :size], example.tokens)
        assert (prompts.tokens[row, size:] == processor.pad_id).all()
        for i, waveform in enumerate(example.waveforms):
            assert prompts.samples[row, i] == len(waveform)
            np.testing.assert_array_equal(prompts.waveforms[row, i, : len(waveform)], waveform)
            assert not prompts.waveforms[row, i, len(waveform) :].any()
    assert prompts.samples[0, 1] == 0 and not prompts.waveforms[0, 1].any()


def test_audio_index_leads_each_placeholder_to_its_clips_frame(processor, encode):
    """Each audio token names its clip and its frame among the clip's features."""
    sizes = (20_000, 30_000, 700)
    prompts = processor.collate([encode(RATE), encode(*sizes)], Shapes()).prompts
    first = [[0, frame] for frame in range(25)]
    second = [[i, frame] for i, size in enumerate(sizes) for frame in range(frame_counts(size)[1])]
    for row, pairs in enumerate([first, second]):
        is_audio = prompts.tokens[row] == processor.audio_id
        assert prompts.audio_index[row, is_audio].tolist() == pairs
        assert (prompts.audio_index[row, ~is_audio] == -1).all()


def test_a_prompt_without_audio(processor, encode):
    prompts = processor.collate([encode()], Shapes(audio_seconds=(2, 4))).prompts
    assert (prompts.audio_index == -1).all() and not prompts.samples.any()
    assert prompts.waveforms.shape == (1, 1, 2 * RATE)
    mixed = processor.collate([encode(), encode(RATE)], Shapes()).prompts
    assert (mixed.audio_index[0] == -1).all() and (mixed.audio_index[1, :, 0] >= 0).sum() == 25


def test_answers_and_their_mask(processor, encode):
    answers = [processor.tokens(text + END) for text in ("dog", "one two three four")]
    batch = processor.collate(
        [dataclasses.replace(encode(RATE), answer=answer) for answer in answers],
        Shapes(answer_tokens=(16,)),
    )
    assert batch.answers.shape == batch.answer_mask.shape == (2, 1, 16)
    for row, answer in enumerate(answers):
        assert batch.answer_mask[row, 0].tolist() == [i < len(answer) for i in range(16)]
        np.testing.assert_array_equal(batch.answers[row, 0][batch.answer_mask[row, 0]], answer)
    assert batch.answers[0, 0, -1] == processor.pad_id


def test_rows_beyond_the_examples_repeat_the_first_and_count_nowhere(
    processor, encode, make_record
):
    examples = [
        dataclasses.replace(
            encode(RATE), record=make_record(id="a"), answer=processor.tokens("dog"), index=5
        ),
        dataclasses.replace(
            encode(9_000), record=make_record(id="b"), answer=processor.tokens("cat"), index=6
        ),
    ]
    batch = processor.collate(examples, Shapes(), rows=4)
    assert [record.id for record in batch.records] == ["a", "b"]
    assert batch.indices.tolist() == [5, 6, 5, 5]
    for row in (2, 3):
        np.testing.assert_array_equal(batch.prompts.tokens[row], batch.prompts.tokens[0])
        np.testing.assert_array_equal(batch.prompts.waveforms[row], batch.prompts.waveforms[0])
        assert not batch.answer_mask[row].any()
    assert batch.answer_mask[:2].any(axis=(1, 2)).all()
    whole = processor.collate(examples, Shapes())
    np.testing.assert_array_equal(whole.prompts.tokens, batch.prompts.tokens[:2])


def test_parts_take_the_shapes_of_the_host_that_needs_the_largest(
    processor, encode, make_record, monkeypatch
):
    def example(size, answer):
        tokens = processor.tokens(answer)
        return dataclasses.replace(encode(size), record=make_record(), answer=tokens)

    shapes = Shapes(prompt_tokens=(64, 96, 128), answer_tokens=(4, 64, 128), audios=(1, 2))
    short, long = (
        [example(RATE, "dog"), example(RATE, "cat")],
        [example(3 * RATE, "dog " * 40), example(RATE, "cat")],
    )
    mine, other = (processor.collate(rows, shapes) for rows in (short, long))
    monkeypatch.setattr(hosts, "is_multihost", lambda: True)
    monkeypatch.setattr(hosts, "all_gather", lambda sizes: np.stack([sizes, [other.sizes]]))
    (part,) = mine.parts(1, shapes)
    assert mine.sizes != other.sizes and part.sizes == other.sizes
    both = processor.collate(short + long, shapes)  # as one process would make of all rows
    for found, wanted in zip(
        (*vars(part.prompts).values(), part.answers, part.answer_mask),
        (*vars(both.prompts).values(), both.answers, both.answer_mask),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted[:2])


# Completions.


def test_texts_keep_tags_and_drop_end_tokens(processor, make_record):
    said = STRUCTURED.render(make_record())
    ids = [
        processor.tokens(said + END),
        processor.tokens("Où ?" + END_OF_TEXT),
        processor.tokens("cut short"),
    ]
    tokens = np.full(
        (3, max(map(len, ids)) + 4), processor.tokens(" five")[0]
    )  # past its length: no matter what
    for row, one in zip(tokens, ids, strict=True):
        row[: len(one)] = one
    texts = processor.texts(tokens, np.array([len(one) for one in ids]))
    assert texts == [said, "Où ?", "cut short"]
    assert STRUCTURED.matches(texts[0])


def test_texts_show_other_special_tokens(processor):
    tokens = processor.tokens(f"a{AUDIO}b<|im_start|>")
    assert processor.texts(tokens[None], np.array([len(tokens)])) == [f"a{AUDIO}b<|im_start|>"]
    assert processor.texts(tokens[None], np.array([0])) == [""]


def test_end_and_padding(processor):
    vocabulary = processor.tokenizer.get_vocab()
    assert processor.end_ids == (vocabulary[END], vocabulary[END_OF_TEXT])
    assert processor.pad_id == vocabulary[END_OF_TEXT]


@pytest.mark.parametrize("named", [None, 5, [5], "both"])
def test_generation_config_may_name_further_ends(named, copied, processor):
    known, path = processor.end_ids, copied / "generation_config.json"
    ids = list(known)[::-1] if named == "both" else named
    path.write_text(json.dumps({"eos_token_id": ids}))
    further = () if named in (None, "both") else (5,)
    assert Processor(copied, read_config(copied)).end_ids == (*known, *further)
    path.unlink()
    assert Processor(copied, read_config(copied)).end_ids == known


# The directory.


@pytest.fixture
def copied(nano_dir, tmp_path):
    """The tokenizer's files alone."""
    for path in nano_dir.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path)
    return tmp_path


def test_a_directory_without_a_tokenizer(nano_dir, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=f"{path}: no usable tokenizer") as caught:
            Processor(path, read_config(nano_dir))
        assert "\n" not in str(caught.value)


def test_a_tokenizer_that_knows_no_audio(copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = copied / name
        path.write_text(path.read_text().replace(AUDIO, "<|SMELL|>"))
    with pytest.raises(InputError, match=r"'<\|SMELL\|>', which the chat template does not write"):
        Processor(copied, read_config(copied))


def test_a_tokenizer_without_an_end(copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = copied / name
        path.write_text(path.read_text().replace(END, "<|stop|>"))
    with pytest.raises(
        InputError,
        match=r"the tokenizer has no token <\|im_end\|>; give the directory",
    ):
        Processor(copied, read_config(copied))


def test_a_config_with_another_placeholder_than_the_template(copied):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"audio_token_index": 7}))
    with pytest.raises(InputError, match="the audio placeholder in config.json is token 7"):
        Processor(copied, read_config(copied))
