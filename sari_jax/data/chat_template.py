"""The chat template of a model directory: the one that transformers would use, checked before it is used.

transformers' AutoProcessor uses the first of these that exists:

1. `chat_template` of processor_config.json;
2. chat_template.json;
3. chat_template.jinja, and for other uses additional_chat_templates/NAME.jinja;
4. the template that transformers itself has for the family (Qwen2-Audio); the hub's directory may have no other;
5. AutoTokenizer's: `chat_template` of tokenizer_config.json.

There is one departure: 5 comes before 4 if it writes the audio placeholder, because nobody writes it to be ignored.
If a place holds several named templates, the one named `default` is used.
"""

import json
from pathlib import Path
from typing import Any

from sari_jax.errors import InputError, one_line

PROCESSOR, LEGACY, JINJA = "processor_config.json", "chat_template.json", "chat_template.jinja"
OTHERS, TOKENIZER = "additional_chat_templates", "tokenizer_config.json"
MEND = "take the file from the model's page, or put a template into chat_template.jinja"
PROBE = "Which of these is louder?"


class ChatTemplate:
    """A template with the tokenizer whose special tokens it may use.

    Args:
        place: the template's origin, for messages: a file, or a class of transformers.
        text: the template.
        tokenizer: transformers' own of the directory.
    """

    def __init__(self, place: Path | str, text: str, tokenizer: Any):
        self.place = place
        self.text = text
        self.tokenizer = tokenizer

    def prompt(self, content: str | list[dict[str, str]]) -> str:
        """Returns the exact text of one user message, up to where the answer begins.

        Raises:
            InputError: the template is broken, or refuses such a message.
        """
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=self.text,
                tokenize=False,
                add_generation_prompt=True,
            )
        except Exception as error:  # a template is a program and may raise anything
            line = f"line {error.lineno}: " if hasattr(error, "lineno") else ""
            reason = one_line(" ".join(str(error).split()) or type(error).__name__, 200)
            raise InputError(
                f"{self.place}: the chat template does not work ({line}{reason}); {MEND}"
            ) from error
        return str(text)

    def question(self, text: str, audios: int) -> str:
        """Returns the prompt of a question about this many clips, which come first."""
        clips = [{"type": "audio", "audio_url": ""}] * audios
        return self.prompt([*clips, {"type": "text", "text": text}])

    def check(self, audio: str, audio_id: int) -> None:
        """Checks the template with prompts for one clip, none and two.

        Args:
            audio: the audio placeholder.
            audio_id: the token of the audio placeholder.

        Raises:
            InputError: a prompt does not have one placeholder for each clip, or does not contain the question.
        """
        for clips in (1, 0, 2):
            prompt = self.question(PROBE, clips)
            if (found := prompt.count(audio)) != clips:
                times = f"writes {found} times" if found else "does not write"
                raise InputError(
                    f"{self.place}: the audio placeholder in config.json is token {audio_id}, {audio!r}, which the chat"
                    f" template {times} in a prompt with {clips} clip{'s' * (clips != 1)}; take config, tokenizer and"
                    " template from one model"
                )
            if prompt.count(PROBE) != 1:
                raise InputError(
                    f"{self.place}: the chat template does not write a message's text exactly once, unchanged; {MEND}"
                )


class ChatTemplates:
    """All chat templates that a model directory holds.

    They are read before the tokenizer, since transformers cannot open a tokenizer beside a broken template.

    Raises:
        InputError: a file that transformers could not read, even if it would use another one.
    """

    def __init__(self, model_dir: Path):
        self.model_dir = model_dir
        self.of_processor: list[tuple[Path, Any]] = [
            (path, _entry(path)) for path in (model_dir / PROCESSOR, model_dir / LEGACY)
        ]
        others = {path.stem: _text(path) for path in sorted((model_dir / OTHERS).glob("*.jinja"))}
        if others and (model_dir / LEGACY).is_file():
            raise InputError(
                f"{model_dir / LEGACY}: transformers opens no directory that has both this file and {OTHERS};"
                f" move its template to {JINJA} and delete this file"
            )
        if (model_dir / JINJA).is_file():
            default = {"default": _text(model_dir / JINJA)}
            self.of_processor.append((model_dir / JINJA, others | default))
        elif others:
            self.of_processor.append((model_dir / OTHERS, others))
        self.of_tokenizer = _entry(model_dir / TOKENIZER)

    def chosen(self, tokenizer: Any, audio: str, audio_id: int) -> ChatTemplate:
        """Returns the template that is used, after checking it.

        Args:
            tokenizer: transformers' own of the directory.
            audio: the audio placeholder.
            audio_id: the token of the audio placeholder.

        Raises:
            InputError: there is no template, it is broken, or it does not fit the tokenizer and config.json.
        """
        present = [(path, value) for path, value in self.of_processor if value is not None]
        if present:
            path, value = present[0]
            found = _default(path, value, tokenizer)
        else:
            found = self._without_processor(tokenizer, audio)
        found.check(audio, audio_id)
        return found

    def _without_processor(self, tokenizer: Any, audio: str) -> ChatTemplate:
        """Returns the tokenizer's template, or the family's if the tokenizer's is made for text alone."""
        family = _family(self.model_dir, tokenizer)
        if self.of_tokenizer is None:
            if family is None:
                raise InputError(f"{self.model_dir}: no chat template ({JINJA}); {MEND}")
            return family
        own = _default(self.model_dir / TOKENIZER, self.of_tokenizer, tokenizer)
        if family is None:
            return own
        # Raises if the template is broken, rather than using the family's silently.
        own.prompt(PROBE)
        try:
            writes_audio = own.question(PROBE, 1).count(audio) > 0
        except InputError:
            # It accepts plain text only.
            writes_audio = False
        return own if writes_audio else family


def _family(model_dir: Path, tokenizer: Any) -> ChatTemplate | None:
    """Returns the template in transformers for Qwen2-Audio, whose directory on the hub has none that writes audio."""
    from transformers import Qwen2AudioProcessor

    kind = json.loads((model_dir / "config.json").read_text()).get("model_type")
    held = getattr(Qwen2AudioProcessor, "default_chat_template", None)
    if kind != "qwen2_audio" or held is None:
        return None
    return ChatTemplate("transformers' Qwen2AudioProcessor", held.fget(None), tokenizer)


def _default(place: Path, value: Any, tokenizer: Any) -> ChatTemplate:
    """Makes the template from a file's entry, which is text or a table of named templates."""
    if isinstance(value, dict):
        if "default" not in value:
            raise InputError(
                f"{place}: has chat templates named {', '.join(map(repr, value)) or 'nothing'}, but none named"
                " 'default', the one that is used; rename one of them to 'default'"
            )
        value = value["default"]
    if not isinstance(value, str):
        raise InputError(f"{place}: the chat template must be text, not {value!r:.50}; {MEND}")
    if not value.strip():
        raise InputError(f"{place}: the chat template is empty; {MEND}")
    return ChatTemplate(place, value, tokenizer)


def _entry(path: Path) -> Any:
    """Returns the `chat_template` of a JSON file; None if there is no file or no such entry."""
    if not path.is_file():
        return None
    text = _text(path)
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); fetch the file again") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not a JSON object; fetch the file again")
    value = settings.get("chat_template")
    if path.name == LEGACY and "chat_template" not in settings:
        raise InputError(f"{path}: has no entry chat_template; {MEND}")
    if isinstance(value, list):
        try:
            return {str(one["name"]): one["template"] for one in value}
        except (TypeError, KeyError) as error:
            raise InputError(
                f"{path}: chat_template must be text, or a list of objects with name and template; {MEND}"
            ) from error
    return value


def _text(path: Path) -> str:
    """Reads a text file of the model directory."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error.reason}); {MEND}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
