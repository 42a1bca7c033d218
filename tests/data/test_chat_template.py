"""Which of a directory's chat templates is taken, as transformers does, and what is told of a broken one."""

import json
import shutil

import pytest
from transformers import AutoProcessor, AutoTokenizer

from sari_jax.data.processor import Processor
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config

JINJA, LEGACY = "chat_template.jinja", "chat_template.json"
PROCESSOR, TOKENIZER = "processor_config.json", "tokenizer_config.json"
# What the hub's directories of language models have: for content that is plain text.
PLAIN = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LISTS = PLAIN.replace("message['content']", "message['content'] | string")


@pytest.fixture
def bare(nano_dir, tmp_path):
    """nano's directory with no weights and no template."""
    for path in nano_dir.iterdir():
        if path.suffix not in (".safetensors", ".jinja"):
            shutil.copy(path, tmp_path)
    assert "chat_template" not in json.loads((tmp_path / TOKENIZER).read_text())
    return tmp_path


@pytest.fixture(scope="module")
def own(nano_dir):
    return (nano_dir / JINJA).read_text()


def put(directory, file, value):
    """A template into one of the places, beside what stands there."""
    path = directory / file
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".jinja":
        path.write_text(value)
        return
    settings = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(settings | {"chat_template": value}))


def prompt(directory):
    return Processor(directory, read_config(directory)).prompt_text("Which is louder?", 2)


def message():
    clips = [{"type": "audio", "audio_url": ""}] * 2
    return [{"role": "user", "content": [*clips, {"type": "text", "text": "Which is louder?"}]}]


def named(template):
    return {"default": template, "tool_use": PLAIN}


def listed(template):
    return [{"name": name, "template": text} for name, text in named(template).items()]


@pytest.mark.parametrize(
    ("file", "form"),
    [
        (JINJA, str),
        (LEGACY, str),
        (LEGACY, named),
        (PROCESSOR, str),
        (PROCESSOR, named),
        (TOKENIZER, str),
        (TOKENIZER, named),
        (TOKENIZER, listed),
        ("additional_chat_templates/default.jinja", str),
    ],
)
def test_every_form(file, form, bare, own):
    put(bare, file, form(own))
    theirs = AutoTokenizer if file == TOKENIZER else AutoProcessor
    theirs = theirs.from_pretrained(bare)
    expected = theirs.apply_chat_template(message(), tokenize=False, add_generation_prompt=True)
    assert prompt(bare) == expected
    assert expected.count("<|AUDIO|>") == 2 and "system" not in expected  # not the built-in one


ORDER = [PROCESSOR, LEGACY, JINJA]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_of_several_is_taken_as_transformers_does(first, bare, own):
    for place, file in enumerate(ORDER[first:]):
        put(bare, file, f"{own}PLACE {place}")
    put(bare, TOKENIZER, f"{own}PLACE 9")
    theirs = AutoProcessor.from_pretrained(bare)
    expected = theirs.apply_chat_template(message(), tokenize=False, add_generation_prompt=True)
    assert prompt(bare) == expected and expected.endswith("PLACE 0")


def test_others_stand_beside_the_default(bare, own):
    put(bare, JINJA, own)
    put(bare, "additional_chat_templates/tool_use.jinja", PLAIN)
    put(bare, "additional_chat_templates/default.jinja", PLAIN)
    theirs = AutoProcessor.from_pretrained(bare)
    assert prompt(bare) == theirs.apply_chat_template(message(), add_generation_prompt=True)


@pytest.mark.parametrize("tokenizers", [None, PLAIN, LISTS, {"default": PLAIN}])
def test_what_transformers_holds_where_a_directory_knows_no_audio(tokenizers, bare):
    """As the hub's directory of Qwen2-Audio."""
    if tokenizers is not None:
        put(bare, TOKENIZER, tokenizers)
    theirs = AutoProcessor.from_pretrained(bare)
    expected = theirs.apply_chat_template(message(), tokenize=False, add_generation_prompt=True)
    assert prompt(bare) == expected
    assert expected.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")


# What is refused: always one line, which names the file.


def refused(directory, told):
    with pytest.raises(InputError, match=told) as caught:
        prompt(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("{% for m in messages %}", r"does not work \(line 1: .*endfor"),
        ("\n{{ messages | nothing_like_it }}", "does not work .line 2: No filter named"),
        ("{% include 'other.jinja' %}", "does not work"),
        ("{{ raise_exception('Only one\nsystem message') }}", r"Only one system message"),
        ("{{ messages[0]['content'].strip().nothing() }}", "does not work"),
        ("{{ 1 // 0 }}", "does not work"),
        ("", "the chat template is empty"),
        (" \n", "the chat template is empty"),
    ],
)
def test_a_broken_template(broken, told, bare):
    put(bare, JINJA, broken)
    refused(bare, rf"{JINJA}: .*{told}.*; take the file from the model's page")


@pytest.mark.parametrize("file", [LEGACY, PROCESSOR, TOKENIZER])
def test_a_broken_template_elsewhere(file, bare):
    put(bare, file, "{% for m in messages %}")
    refused(bare, f"{file}: the chat template does not work")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (3, "the chat template must be text, not 3"),
        ([], "named nothing, but none named 'default'"),
        ({}, "named nothing, but none named 'default'"),
        ({"rag": PLAIN, "tool_use": PLAIN}, "named 'rag', 'tool_use', but none named 'default'"),
        ({"default": None}, "the chat template must be text, not None"),
        ({"default": ["x"]}, "the chat template must be text, not"),
        (["text"], "must be text, or a list of objects with name and template"),
        ([{"name": "default"}], "must be text, or a list of objects with name and template"),
        ([{"name": "rag", "template": PLAIN}], "named 'rag', but none named 'default'"),
    ],
)
def test_another_form(broken, told, bare):
    for file in (TOKENIZER, LEGACY, PROCESSOR):  # each comes before those in front of it
        put(bare, file, broken)
        refused(bare, f"{file}: .*{told}.*; (take the file|rename one of them to 'default')")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("<|AUDIO|>", "<|SOUND|>"),
            r"which the chat template does not write in a prompt with 1 clip",
        ),
        (
            ("<|AUDIO|>", "<|AUDIO|><|AUDIO|>"),
            "writes 2 times in a prompt with 1 clip",
        ),
        (("<|im_start|>", "<|AUDIO|>"), r"writes \d times in a prompt with 1 clip"),
        (("['text']", "['type']"), "does not write a message's text exactly once, unchanged"),
        (
            ("['text']", "['text'] | upper"),
            "does not write a message's text exactly once, unchanged",
        ),
    ],
)
def test_a_template_that_loses_something(change, told, bare, own):
    assert change[0] in own
    put(bare, JINJA, own.replace(*change))
    refused(bare, f"{JINJA}: .*{told}")


def test_a_template_for_text_alone(bare):
    put(bare, JINJA, PLAIN)
    refused(bare, f"{JINJA}: the chat template does not work .*; take the file")
    put(bare, JINJA, LISTS)
    refused(
        bare, rf"{JINJA}: .* is token \d+, '<\|AUDIO\|>', which the chat template does not write"
    )


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        (JINJA, b"\xff\xfe{{", "not text in UTF-8"),
        ("additional_chat_templates/rag.jinja", b"\xff", "not text in UTF-8"),
        (LEGACY, b"\xff", "not text in UTF-8"),
        (LEGACY, b"{", "not JSON"),
        (LEGACY, b"[]", "not a JSON object"),
        (LEGACY, b"{}", "has no entry chat_template"),
        (PROCESSOR, b"", "not JSON"),
        (TOKENIZER, b"{'a': 1}", "not JSON"),
        ("generation_config.json", b"[]", "not a JSON object"),
        (
            "generation_config.json",
            b'{"eos_token_id": ["x"]}',
            r"eos_token_id \['x'\] must be one or more token ids",
        ),
    ],
)
def test_a_file_that_cannot_be_read(file, content, told, bare, own):
    put(bare, JINJA, own)
    (bare / file).parent.mkdir(exist_ok=True)
    (bare / file).write_bytes(content)
    refused(bare, f"{file}: {told}")


def test_files_that_transformers_does_not_open_together(bare, own):
    put(bare, LEGACY, own)
    put(bare, "additional_chat_templates/rag.jinja", PLAIN)
    with pytest.raises(ValueError, match="conflicting files"):
        AutoProcessor.from_pretrained(bare)
    refused(
        bare,
        f"{LEGACY}: transformers opens no directory that has both .* delete this file",
    )


def test_others_without_a_default(bare):
    put(bare, "additional_chat_templates/rag.jinja", PLAIN)
    refused(bare, "additional_chat_templates: has chat templates named 'rag', but none named")


def test_no_template_at_all(bare):
    """Of a family for which transformers holds none."""
    audio_id = json.loads((bare / "config.json").read_text())["audio_token_index"]
    omni = {"model_type": "qwen2_5_omni", "thinker_config": {"audio_token_index": audio_id}}
    (bare / "config.json").write_text(json.dumps(omni))
    refused(bare, f"{bare}: no chat template .{JINJA}.; take the file from the model's page")
