"""The chat template of a model directory: whichever transformers would take, checked before it is used.

transformers' AutoProcessor takes the first of these that is there:

1. `chat_template` of processor_config.json;
2. chat_template.json;
3. chat_template.jinja, and for other uses additional_chat_templates/NAME.jinja;
4. the one that transformers itself holds for the family (Qwen2-Audio), which may be all that the hub's directory has;
5. AutoTokenizer's: `chat_template` of tokenizer_config.json.

The one departure: 5 comes before 4 if it writes sound's placeholder, as nobody writes that to have it ignored.
Where a place holds several templates, by name, the one called `default` is taken.
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
    """A template, where it stands, and the tokenizer whose special tokens it may ask for.

    Args:
        place: for messages: a file, or a class of transformers.
    """

    def __init__(self, place: Path | str, text: str, tokenizer: Any):
        self.place, self.text, self.tokenizer = place, text, tokenizer

    def prompt(self, content: str | list[dict[str, str]]) -> str:
        """The exact text of one user's message, up to where the answer begins.

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
        except Exception as error:  # a template is a program, and may raise whatever it likes
            line = f"line {error.lineno}: " if hasattr(error, "lineno") else ""
            reason = one_line(" ".join(str(error).split()) or type(error).__name__, 200)
            raise InputError(
                f"{self.place}: the chat template does not work ({line}{reason}); {MEND}"
            ) from error
        return str(text)

    def question(self, text: str, audios: int) -> str:
        """The prompt of a question about this many clips, which come first."""
        clips = [{"type": "audio", "audio_url": ""}] * audios
        return self.prompt([*clips, {"type": "text", "text": text}])

    def check(self, audio: str, audio_id: int) -> None:
        """Asks about one clip, none and two.

        Args:
            audio: sound's placeholder, which is token `audio_id`.

        Raises:
            InputError: placeholders and clips differ in number, or the question is not in the prompt.
        """
        for clips in (1, 0, 2):
            prompt = self.question(PROBE, clips)
            if (found := prompt.count(audio)) != clips:
                writes = f"writes {found} times" if found else "does not write"
                raise InputError(
                    f"{self.place}: config.json says that sound stands at token {audio_id}, {audio!r}, which the chat"
                    f" template {writes} in a prompt with {clips} clip{'s' * (clips != 1)}; take config, tokenizer and"
                    " template from one model"
                )
            if prompt.count(PROBE) != 1:
                raise InputError(
                    f"{self.place}: the chat template does not write a message's text once and as it stands; {MEND}"
                )


class ChatTemplates:
    """All chat templates that a model directory holds.

    They are read before its tokenizer, which a broken one keeps from opening.

    Raises:
        InputError: a file that transformers could not read, even if it would take another.
    """

    def __init__(self, model_dir: Path):
        self.model_dir = model_dir
        self.of_processor: list[tuple[Path, Any]] = [
            (path, _entry(path)) for path in (model_dir / PROCESSOR, model_dir / LEGACY)
        ]
        others = {path.stem: _text(path) for path in sorted((model_dir / OTHERS).glob("*.jinja"))}
        if others and (model_dir / LEGACY).is_file():
            raise InputError(
                f"{model_dir / LEGACY}: stands beside {OTHERS}, and transformers opens no directory that has both;"
                f" put its template into {JINJA} and take it away"
            )
        if (model_dir / JINJA).is_file():
            default = {"default": _text(model_dir / JINJA)}
            self.of_processor.append((model_dir / JINJA, others | default))
        elif others:
            self.of_processor.append((model_dir / OTHERS, others))
        self.of_tokenizer = _entry(model_dir / TOKENIZER)

    def chosen(self, tokenizer: Any, audio: str, audio_id: int) -> ChatTemplate:
        """The one that is taken, checked.

        Args:
            tokenizer: transformers' own of the directory.

        Raises:
            InputError: there is none, or it is broken, or does not go with tokenizer and config.json.
        """
        there = [(path, value) for path, value in self.of_processor if value is not None]
        if there:
            found = _default(*there[0], tokenizer)
        else:
            found = self._without_a_processors(tokenizer, audio)
        found.check(audio, audio_id)
        return found

    def _without_a_processors(self, tokenizer: Any, audio: str) -> ChatTemplate:
        """The tokenizer's own, or the family's where that one is made for text alone."""
        family = _family(self.model_dir)
        if self.of_tokenizer is None:
            if family is None:
                raise InputError(f"{self.model_dir}: no chat template ({JINJA}); {MEND}")
            return ChatTemplate(*family, tokenizer)
        own = _default(self.model_dir / TOKENIZER, self.of_tokenizer, tokenizer)
        if family is None:
            return own
        own.prompt(PROBE)  # a broken one is told, and not passed over
        try:
            with_sound = own.question(PROBE, 1).count(audio) > 0
        except InputError:  # it takes plain text only
            with_sound = False
        return own if with_sound else ChatTemplate(*family, tokenizer)


def _family(model_dir: Path) -> tuple[str, str] | None:
    """Qwen2-Audio's, which transformers keeps as the hub's directory has none that knows sound."""
    from transformers import Qwen2AudioProcessor

    kind = json.loads((model_dir / "config.json").read_text()).get("model_type")
    held = getattr(Qwen2AudioProcessor, "default_chat_template", None)
    if kind != "qwen2_audio" or held is None:
        return None
    return "transformers' Qwen2AudioProcessor", held.fget(None)


def _default(place: Path, value: Any, tokenizer: Any) -> ChatTemplate:
    """The template itself, where a file holds it as text or by names."""
    if isinstance(value, dict):
        if "default" not in value:
            raise InputError(
                f"{place}: has chat templates named {', '.join(map(repr, value)) or 'nothing'} and none named"
                f" 'default', the one that is taken; give one of them that name"
            )
        value = value["default"]
    if not isinstance(value, str):
        raise InputError(f"{place}: the chat template is no text ({value!r:.50}); {MEND}")
    if not value.strip():
        raise InputError(f"{place}: the chat template is empty; {MEND}")
    return ChatTemplate(place, value, tokenizer)


def _entry(path: Path) -> Any:
    """What a JSON file holds as `chat_template`; None where there is no file or no such entry."""
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
        raise InputError(f"{path}: no entry chat_template; {MEND}")
    if isinstance(value, list):
        try:
            return {str(one["name"]): one["template"] for one in value}
        except (TypeError, KeyError) as error:
            raise InputError(
                f"{path}: chat_template is a list, and not of names and templates; {MEND}"
            ) from error
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error.reason}); {MEND}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
