import pytest

from sari_jax.corpus.synthesize.templates import NAMES, Prompts
from sari_jax.errors import InputError

VALUES = {
    "question": "What is heard?",
    "choices": ("a dog", "a cat"),
    "answer": "a dog",
    "caption": "A dog <barks> & runs.",
    "labels": ("bark", "bell"),
    "task": "sound",
}


@pytest.mark.parametrize("name", NAMES)
def test_ours_are_filled_in(name):
    text = Prompts().render(name, **VALUES)
    assert "{{" not in text and "{%" not in text and text == text.strip()
    if name != "caption":
        assert "A dog <barks> & runs." in text and "bark, bell" in text
    if name in ("structured", "free"):
        assert "- a dog\n- a cat\n" in text and text.count("a dog") == 2


@pytest.mark.parametrize("name", ["question", "structured", "free"])
def test_what_is_not_known_is_left_out(name):
    text = Prompts().render(name, **VALUES | {"caption": None, "labels": ()})
    assert "None" not in text and "Heard in it" not in text and "Content" not in text


def test_what_is_filled_in_is_no_template():
    text = Prompts().render("question", **VALUES | {"caption": "{{ 7 * 7 }}{% if %}"})
    assert "{{ 7 * 7 }}{% if %}" in text


def test_a_folder_stands_in_for_some(tmp_path):
    (tmp_path / "free.txt").write_text("Think about {{ question }}")
    prompts = Prompts(tmp_path)
    assert prompts.render("free", **VALUES) == "Think about What is heard?"
    assert prompts.render("question", **VALUES) == Prompts().render("question", **VALUES)


@pytest.mark.parametrize(
    "text, told",
    [
        ("{{ qestion }}", "qestion.*may use question, choices"),
        ("{{ question.__class__.__mro__ }}", "unsafe"),
        ("{% if %}", "not a template"),
        (b"\xff", "cannot be read"),
    ],
)
def test_bad_prompts(tmp_path, text, told):
    text = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "question.txt").write_bytes(text)
    with pytest.raises(InputError, match=told):
        Prompts(tmp_path).render("question", **VALUES)


def test_a_folder_without_any(tmp_path):
    with pytest.raises(InputError, match="holds none of question.txt"):
        Prompts(tmp_path / "nowhere")
