"""The three models of the hub: prompts, ids, ends and sizes are those of transformers' own tests.

hub/models.json says where each value comes from. The tokenizer has those words only that the prompts consist of, at the
ids that they have on the hub.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5OmniProcessor,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from sari_jax.data.processor import Processor
from sari_jax.hf.config import read_config
from sari_jax.models.sizes import SIZES

FOLDER = Path(__file__).parent / "hub"
HUB = json.loads((FOLDER / "models.json").read_text())
OMNI_TEMPLATE = FOLDER / "omni_chat_template.json"
QUESTION = "What's that sound?"
# How Qwen's tokenizers split text.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What language models have on the hub, for content that is plain text.
TEXT_ALONE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(params=list(HUB["models"]))
def model(request, tmp_path):
    """Its name here, what is known of it, and a directory with its small files."""
    known = HUB["models"][request.param]
    special, omni = known["special_tokens"], "omni" in request.param
    spelt = {word.replace(" ", "Ġ").replace("\n", "Ċ"): id for word, id in HUB["words"].items()}
    tokenizer = Tokenizer(models.WordLevel(spelt | special, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    ).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(known["config"]))
    if known["generation_config"] is not None:
        text = json.dumps(known["generation_config"])
        (tmp_path / "generation_config.json").write_text(text)
    if omni:
        (tmp_path / "chat_template.json").write_text(OMNI_TEMPLATE.read_text())
    return request.param, known, tmp_path


def read(directory):
    return Processor(directory, read_config(directory))


def theirs(directory):
    """transformers' processor, without eyes: those want libraries that are not needed here."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    seconds = read_config(directory).encoder.seconds
    ears = WhisperFeatureExtractor(feature_size=128, chunk_length=seconds)
    if not (directory / "chat_template.json").is_file():
        return Qwen2AudioProcessor(feature_extractor=ears, tokenizer=tokenizer)
    processor = Qwen2_5OmniProcessor.__new__(Qwen2_5OmniProcessor)
    processor.feature_extractor, processor.tokenizer = ears, tokenizer
    processor.chat_template = json.loads(OMNI_TEMPLATE.read_text())["chat_template"]
    return processor


def test_the_prompt_is_that_of_transformers_tests(model):
    """Token by token, for one clip of as many features as in theirs."""
    _, known, directory = model
    processor, sound = read(directory), np.zeros(101 * 640, np.float32)
    example = processor.encode(processor.prompt_text(QUESTION, 1), [sound])
    place = known["prompt"].index("sound")
    expected = [*known["prompt"][:place], *[151646] * 101, *known["prompt"][place + 1 :]]
    assert example.tokens.tolist() == expected
    assert processor.audio_id == 151646 and processor.audio == "<|AUDIO|>"


@pytest.mark.parametrize("clips", [0, 1, 3])
def test_the_prompt_is_that_of_transformers_processor(clips, model):
    _, _, directory = model
    content = [{"type": "audio", "audio_url": ""}] * clips + [{"type": "text", "text": QUESTION}]
    expected = theirs(directory).apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert read(directory).prompt_text(QUESTION, clips) == expected
    assert expected.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")


def test_a_tokenizers_template_for_text_alone_is_passed_over(model):
    """It would not know what to do with sound; Omni's own file comes before it anyway."""
    _, _, directory = model
    before = read(directory).prompt_text(QUESTION, 1)
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"chat_template": TEXT_ALONE}
    path.write_text(json.dumps(settings))
    assert read(directory).prompt_text(QUESTION, 1) == before


def test_ends_and_padding(model):
    """Those that generation_config.json names; where there is none, Qwen's."""
    _, known, directory = model
    processor = read(directory)
    named = (known["generation_config"] or {}).get("eos_token_id", [151645, 151643])
    assert set(processor.end_ids) == set(named) and processor.end_ids[0] == 151645
    assert processor.pad_id == 151643


def test_opening_a_directory_says_nothing(model, caplog):
    read(model[2])
    assert [record.getMessage() for record in caplog.records] == []


def test_sizes(model):
    """Of config.json, as commands that need no weights have them."""
    name, _, directory = model
    assert read_config(directory) == SIZES[name]
