import pytest
from transformers import AutoTokenizer, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from sari_jax.assemble import tokenizer as ours

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
TEXTS = [
    "Which sound is heard? a red bird two dogs",
    "Think in <think>, then give the answer in <answer>.",
    "user\nassistant\nAudio 1:",
]
SPEECH = [
    "Which sound is heard?\ntwo dogs",
    "<think>a red bird</think><answer>two dogs</answer><|im_end|>",
    "It's 1234 dogs,  naïve\n\n日本 🐦\t'LL don't",
    "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|AUDIO|><|audio_eos|>\n",
]


@pytest.fixture(scope="module")
def nano():
    return ours.nano_tokenizer(TEXTS, TAGS, 2000)


@pytest.fixture
def nano_opened(nano, tmp_path):
    ours.write_tokenizer(nano, tmp_path, tokenizer_class="Qwen2Tokenizer")
    return AutoTokenizer.from_pretrained(tmp_path)


def test_words_are_cut_as_qwen_cuts_them():
    assert ours.QWEN_WORDS == PRETOKENIZE_REGEX


def test_nano_opens_as_qwen2(nano, nano_opened):
    assert isinstance(nano_opened, Qwen2Tokenizer)
    assert len(nano_opened) == nano.get_vocab_size()
    assert nano_opened.eos_token == "<|im_end|>" and nano_opened.pad_token == "<|endoftext|>"


@pytest.mark.parametrize("text", SPEECH)
def test_nano_reads_alike_in_both(nano, nano_opened, text):
    ids = nano_opened(text)["input_ids"]
    assert ids == nano.encode(text).ids
    assert nano_opened.decode(ids) == text


def test_nano_learns_words_with_and_without_a_space_before(nano):
    assert nano.encode("bird bird\nbird").tokens == ["bird", "Ġbird", "Ċ", "bird"]


@pytest.mark.parametrize("token", [*TAGS, *ours.CHAT, *ours.AUDIO])
def test_nano_has_tags_and_special_tokens_whole(nano, token):
    assert len(nano.encode(f"a{token}b").ids) == 3


def test_tags_are_text_and_not_special(nano_opened):
    ids = nano_opened("<answer>red</answer><|im_end|>")["input_ids"]
    assert nano_opened.decode(ids, skip_special_tokens=True) == "<answer>red</answer>"


def test_no_tag_is_learnt_from_its_spelling(nano):
    assert not {token for token in nano.get_vocab() if "think" in token} - {"<think>", "</think>"}


def test_nano_is_the_same_each_time(nano):
    assert ours.nano_tokenizer(TEXTS, TAGS, 2000).to_str() == nano.to_str()


def test_nano_limit_counts_what_comes_before_special_tokens():
    small = ours.nano_tokenizer(TEXTS, TAGS, 260)
    assert small.get_vocab_size() == 260 + len(TAGS) + 6
    assert small.decode(small.encode("two dogs").ids) == "two dogs"


def test_smollm2_keeps_its_ids_and_gains_sound(tmp_path):
    base = ours.nano_tokenizer(TEXTS, (), 300)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    for token in sorted(base.get_vocab(), key=base.token_to_id):
        if not token.startswith("<|"):
            tokens.append(token)
    made = ours.smollm2_tokenizer({token: i for i, token in enumerate(tokens)}, [], tokens[:3])
    ours.write_tokenizer(made, tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert opened.convert_tokens_to_ids(tokens) == list(range(len(tokens)))
    assert opened.convert_tokens_to_ids(list(ours.AUDIO)) == [len(tokens) + i for i in range(3)]
    for text in SPEECH:
        assert opened(text)["input_ids"] == made.encode(text).ids
        assert opened.decode(opened(text)["input_ids"]) == text


def test_smollm2_cuts_numbers_into_digits():
    made = ours.smollm2_tokenizer({"1": 0, "2": 1, "12": 2, "a": 3}, [("1", "2")], ())
    assert made.encode("12a").tokens == ["1", "2", "a"]
