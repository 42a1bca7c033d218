"""AudioMCQ: questions with chains in either form."""

from sari_jax.corpus.sources import audiomcq
from sari_jax.data.records import SECTIONS, Clip, Record
from sari_jax.data.styles import STYLES


def test_the_sample(built):
    found = built("audiomcq")
    assert found.records["audiomcq-AudioCaps_17"] == Record(
        id="audiomcq-AudioCaps_17",
        audio=(Clip(str(found.sounds / "AudioCaps/17.wav")),),
        question="What follows the bell?",
        choices=("a dog", "a horn", "silence", "a voice"),
        answer_index=1,
        task="sound",
        source="audiomcq/AudioCaps",
        licence=audiomcq.LICENCE,
        kind="sound",
        chain_structured=dict(
            zip(
                SECTIONS,
                (
                    "I look for the bell.",
                    "A bell, then a horn.",
                    "The horn is second.",
                    "A horn follows.",
                ),
                strict=True,
            )
        ),
        chain_free="First a bell, then a horn.",
    )
    by_letter = found.records["audiomcq-mtt_4"]
    assert (by_letter.answer_index, by_letter.task, by_letter.kind) == (1, "music", "temporal")
    assert by_letter.chain_free == "The drum enters at the end."
    plain = found.records["audiomcq-MELD-meld/1.wav"]
    assert plain.task == "speech" and plain.chain_structured is None
    assert plain.chain_free == "Step 1: he laughs. Step 2: so he is glad."
    assert len(found.records) == 3
    assert found.drops == [
        (4, "answer not among the choices"),
        (5, "sound file missing"),
        (6, "bad field"),
        (7, "bad field"),
    ]
    assert found.report["read"] == 7


def test_its_chains_can_be_learnt_in_our_styles(built):
    record = built("audiomcq").records["audiomcq-AudioCaps_17"]
    for name in ("free", "structured"):
        assert STYLES[name].matches(STYLES[name].render(record))


def test_a_structured_chain_without_all_sections_is_a_free_one_without_tags(context):
    row = {"audio_path": "a.wav", "question": "Which?", "choices": ["x", "y"], "answer": "y"}
    (draft,) = audiomcq.convert(
        row | {"structured_cot": "<planning>Listen.</planning> It is y."}, context
    )
    assert draft["chain_free"] == "Listen. It is y." and "chain_structured" not in draft


def test_a_chain_given_with_tags_and_answer_is_the_thought_alone(context):
    row = {"audio_path": "a.wav", "question": "Which?", "choices": ["x", "y"], "answer": "y"}
    told = "<think>It is y. <reasoning>So.</reasoning></think><answer>y</answer>"
    (draft,) = audiomcq.convert(row | {"unstructured_cot": told}, context)
    assert draft["chain_free"] == "It is y. So."
