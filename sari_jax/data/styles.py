"""Answer styles: the form of a completion, and how to write, check and read one.

`direct` is `<answer>...</answer>`. `free` puts `<think>...</think>` before it. `structured` divides the thinking into
planning, caption, reasoning and summary. The tag names are ours: the SARI paper does not publish its own.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

from sari_jax.data.records import SECTIONS, Record
from sari_jax.errors import InputError

NAMES = ("direct", "free", "structured")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tags:
    """The names of the tags, without their angle brackets. Ours."""

    think: str = "think"
    planning: str = "planning"
    caption: str = "caption"
    reasoning: str = "reasoning"
    summary: str = "summary"
    answer: str = "answer"

    def __post_init__(self):
        names = dataclasses.astuple(self)
        for name in names:
            if not name.strip() or set(name) & set("<>"):
                raise InputError(
                    f"tag {name!r}: a name must not be empty or contain < or >; choose another"
                )
        if len({name.casefold() for name in names}) < len(names):
            raise InputError(f"tags {', '.join(names)}: two are the same; give each its own name")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """An answer style, made by `make_style`.

    Attributes:
        name: direct, free or structured.
        think_tag: around the chain of thought; None for a style without one.
        section_tags: (section, tag) pairs in the order they must come.
        answer_tag: around the answer.
    """

    name: str
    think_tag: str | None
    section_tags: tuple[tuple[str, str], ...]
    answer_tag: str

    @property
    def instruction(self) -> str:
        """The sentence that asks for this style at the end of a question."""
        if self.think_tag is None:
            return f"Give the answer in <{self.answer_tag}>."
        where = f"inside <{self.think_tag}>"
        if self.section_tags:
            *first, last = [f"<{tag}>" for _, tag in self.section_tags]
            where = f"in {', '.join(first)} and {last} {where}"
        return f"Think {where}, then give the answer in <{self.answer_tag}>."

    @property
    def max_tokens(self) -> int:
        """The default limit of a completion's length in tokens. Ours; the paper publishes none."""
        return 256 if self.think_tag is None else 512

    def render(self, record: Record) -> str:
        """Writes the completion that a model should give: the record's chain and its right choice.

        Raises:
            InputError: the record has no chain for this style, or a text in it is empty or contains one of the tags.
        """
        answer = _wrap(self.answer_tag, record.choices[record.answer_index])
        text = self._render_chain(record) + answer
        if not self.matches(text):
            raise InputError(
                f"record {record.id}: its chain or its right choice is empty or contains a tag of style {self.name!r};"
                " correct the text"
            )
        return text

    def _render_chain(self, record: Record) -> str:
        if self.think_tag is None:
            return ""
        if not self.section_tags:
            if record.chain_free is None:
                raise InputError(
                    f"record {record.id}: style {self.name!r} needs chain_free; add it, or use style 'direct'"
                )
            return _wrap(self.think_tag, record.chain_free)
        chain = record.chain_structured or {}
        missing = [section for section, _ in self.section_tags if section not in chain]
        if missing:
            raise InputError(
                f"record {record.id}: style {self.name!r} needs chain_structured with {', '.join(missing)};"
                " add it, or use style 'direct'"
            )
        return _wrap(
            self.think_tag,
            "".join(_wrap(tag, chain[section]) for section, tag in self.section_tags),
        )

    def matches(self, text: str) -> bool:
        """Whether the whole text is in this style.

        Every tag occurs once, in order and in its exact case. Every body is non-empty and contains no further tag of
        the style, in any case. White space is allowed between and around tags, other text is not. The check takes time
        linear in the text.
        """
        return self._grammar.fullmatch(text) is not None

    @functools.cached_property
    def _grammar(self) -> re.Pattern:
        """The style as a regular expression."""
        tags = [tag for _, tag in self.section_tags] + [self.answer_tag]
        if self.think_tag is not None:
            tags.append(self.think_tag)
        any_tag = f"</?(?i:{'|'.join(map(re.escape, tags))})>"
        # All quantifiers are possessive, so that nothing is tried twice.
        body = rf"\s*+(?:(?!{any_tag})[\s\S])++"

        def element(tag: str, inside: str) -> str:
            return rf"\s*+<{re.escape(tag)}>{inside}</{re.escape(tag)}>\s*+"

        pattern = element(self.answer_tag, body)
        if self.think_tag is not None:
            sections = "".join(element(tag, body) for _, tag in self.section_tags)
            pattern = element(self.think_tag, sections or body) + pattern
        return re.compile(pattern)

    def sections(self, text: str) -> dict[str, str]:
        """Returns the complete sections of the chain, whatever is around them; in style `free`, it is `think`."""
        parts = self.section_tags
        if not parts and self.think_tag is not None:
            parts = (("think", self.think_tag),)
        found = {section: _bodies(tag, text) for section, tag in parts}
        return {section: bodies[0] for section, bodies in found.items() if bodies}

    def answer(self, text: str) -> str | None:
        """Returns the text within the last complete pair of answer tags, stripped; None if there is no such pair."""
        bodies = _bodies(self.answer_tag, text)
        return bodies[-1] if bodies else None


def make_style(name: str, tags: Tags = Tags()) -> Style:
    """Makes the style of that name with these tags.

    Raises:
        InputError: the name is unknown.
    """
    if name not in NAMES:
        raise InputError(f"style {name!r} is unknown; choose {', '.join(NAMES)}")
    sections = tuple((s, getattr(tags, s)) for s in SECTIONS) if name == "structured" else ()
    return Style(
        name=name,
        think_tag=None if name == "direct" else tags.think,
        section_tags=sections,
        answer_tag=tags.answer,
    )


STYLES: dict[str, Style] = {name: make_style(name) for name in NAMES}


def style(name: str) -> Style:
    """Returns the registered style of that name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in STYLES:
        raise InputError(f"style {name!r} is unknown; choose {', '.join(STYLES)}")
    return STYLES[name]


def question_text(question: str, choices: Sequence[str], style: Style) -> str:
    """Returns the user's message: the question, the choices as a list (if any), and the style's instruction.

    After "- ", a choice has the same tokens as within a sentence, so a small model can copy it.
    """
    listed = ["Choose one:", *(f"- {choice}" for choice in choices)] if choices else []
    return "\n".join([question, *listed, style.instruction])


def _wrap(tag: str, body: str) -> str:
    return f"<{tag}>{body.strip()}</{tag}>"


def _bodies(tag: str, text: str) -> list[str]:
    """Returns the text within each complete pair of this tag; of nested pairs, the innermost."""
    name = re.escape(tag)
    return [
        body.strip() for body in re.findall(rf"<{name}>((?:(?!</?{name}>)[\s\S])*+)</{name}>", text)
    ]
