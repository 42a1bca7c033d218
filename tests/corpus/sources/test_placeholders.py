"""Marks of sounds: taken out where they stand apart, named within a sentence, and nothing else of the kind kept."""

import pytest

from sari_jax.corpus.sources.placeholders import OTHER_MEDIA, RUBBISH, TAGS, placed, refuse_tags
from sari_jax.data.ledger import Drop

QWEN2 = "<|audio_bos|><|AUDIO|><|audio_eos|>"
QWEN3 = "<|audio_start|><|audio_pad|><|audio_pad|><|audio_end|>"
APART = {
    "<audio>Which animal is heard?": "Which animal is heard?",
    "<audio>\nwhich animal is heard?": "which animal is heard?",
    "<audio>which animal is heard?": "which animal is heard?",
    "<audio> <audio>\nWhich is louder?": "Which is louder?",
    "Which animal is heard?<audio>": "Which animal is heard?",
    "Which animal is heard?\n<audio>\nA. cat\nB. dog": "Which animal is heard?\n\nA. cat\nB. dog",
    "Listen. <audio> Which animal is heard?": "Listen. Which animal is heard?",
    "Listen.<audio>Which animal is heard?": "Listen. Which animal is heard?",
    "Listen: <audio> Which animal is heard?": "Listen: Which animal is heard?",
    "Listen to this: <audio>\nWho sings?": "Listen to this:\nWho sings?",
    "<audio>这是什么声音？": "这是什么声音？",
    "<audio>«Oui» ?": "«Oui» ?",
    f"{QWEN2}Who sings?": "Who sings?",
    f"Audio 1: {QWEN2}\nAudio 2: {QWEN2}\nWhich is louder?": "Which is louder?",
    "Audio 1: <audio> Audio 2: <audio> Which is louder?": "Which is louder?",
    f"{QWEN3}{QWEN3}Which is louder?": "Which is louder?",
    "<|audio_1|><|audio_2|>Which is louder?": "Which is louder?",
    "<audio1>\n<audio2>\nWhich is louder?": "Which is louder?",
    "<AUDIO>Who sings?": "Who sings?",
    "<sound>Who sings?": "Who sings?",
    "<|audio|>Who sings?": "Who sings?",
    "<audio></audio>Who sings?": "Who sings?",
    "<audio>a b/c.wav</audio>\nWho sings?": "Who sings?",
    "<audio_bos><audio><audio_eos>Who sings?": "Who sings?",
    "< audio >Who sings?": "Who sings?",
    "<SpeechHere>Who sings?": "Who sings?",
    "<speech_here> Who sings?": "Who sings?",
    "Who sings?": "Who sings?",
    "": "",
}
NAMED = {
    "Is <audio> higher than <audio>?": "Is Audio 1 higher than Audio 2?",
    "Is<audio>higher than<audio>?": "Is Audio 1 higher than Audio 2?",
    "<audio> is louder than <audio>: true?": "Audio 1 is louder than Audio 2: true?",
    "<audio>和<audio>哪个更响？": "Audio 1和Audio 2哪个更响？",
    "<audio>\nCompare it with <audio>.": "Compare it with Audio 2.",
    "<audio> What has it in common with <audio>?": "What has it in common with Audio 2?",
    "What is heard in <audio>?": "What is heard in Audio 1?",
    "What is heard in <audio>": "What is heard in Audio 1",
    "<audio>'s pitch is (A) low (B) high": "Audio 1's pitch is (A) low (B) high",
    "<audio> sounds like what?": "Audio 1 sounds like what?",
    "<audio> is what animal?": "Audio 1 is what animal?",
    "<audio> has how many speakers?": "Audio 1 has how many speakers?",
    "<audio> was recorded where?": "Audio 1 was recorded where?",
    "<audio>, what is it?": "Audio 1, what is it?",
    "First: <audio>\nSecond: <audio>\nWhich?": "First: Audio 1\nSecond: Audio 2\nWhich?",
    "Which one barks?\nA. <audio>\nB. <audio>": "Which one barks?\nA. Audio 1\nB. Audio 2",
    "Which barks? (A) <audio> (B) <audio>": "Which barks? (A) Audio 1 (B) Audio 2",
    "Which barks?\n- <audio>\n- <audio>": "Which barks?\n- Audio 1\n- Audio 2",
    "Which? ['<audio>', '<audio>']": "Which? ['Audio 1', 'Audio 2']",
    f"Is {QWEN2} higher than {QWEN2}?": "Is Audio 1 higher than Audio 2?",
    "Compare Audio 1: <audio> and Audio 2: <audio>.": "Compare Audio 1 and Audio 2.",
    "Are <audio> <audio> alike?": "Are Audio 1 Audio 2 alike?",
    "Is <audio>a.wav</audio> like <audio>b.wav</audio>?": "Is Audio 1 like Audio 2?",
}
DROPPED = {
    "<image>What is seen?": OTHER_MEDIA,
    "<audio><video>What is it?": OTHER_MEDIA,
    "<|vision_start|><|image_pad|><|vision_end|>What?": OTHER_MEDIA,
    "<|audio_bos|>What is heard?": RUBBISH,
    "<|im_start|>user\nWhat is heard?<|im_end|>": RUBBISH,
    "<audio>Where is <box>?": RUBBISH,
    "</audio>What?": RUBBISH,
    "[INST]<audio>What?[/INST]": RUBBISH,
    "<s>What?": RUBBISH,
    "<audio src='a.wav'>What?": RUBBISH,
    "<audio>What? <audio_eos>": RUBBISH,
    "<audio_url: a.wav> What?": RUBBISH,
    "[audio] What?": RUBBISH,
    "[AUDIO_1] What?": RUBBISH,
    "<start_of_audio><end_of_audio>What?": RUBBISH,
    "<｜audio｜>What?": RUBBISH,
    "&lt;audio&gt;What?": RUBBISH,
    "<audio-1>What?": RUBBISH,
    "<mm_audio>What?": RUBBISH,
    "<AudioFeature>What?": RUBBISH,
    "<start_of_turn>What?": RUBBISH,
    "<extra_id_0>What?": RUBBISH,
    "[PAD]What?": RUBBISH,
    "What is heard in {audio}?": RUBBISH,
    "What is heard in {{ audio }}?": RUBBISH,
    "Audio 2: <audio>\nAudio 1: <audio>\nWhich?": TAGS,
    "<|audio_2|><|audio_1|>Which?": TAGS,
    "<audio>a.wav</audio><audio>Which?": TAGS,
    "<|audio_1|>Is <|audio_1|> loud?": TAGS,
}


def test_marks_that_stand_apart_are_taken_out():
    assert {prompt: placed(prompt).text for prompt in APART} == APART


def test_marks_within_a_sentence_become_names():
    assert {prompt: placed(prompt).text for prompt in NAMED} == NAMED


def test_they_are_counted_and_their_paths_read():
    for prompt in (*APART, *NAMED):
        written = prompt.lower().replace("<audio_bos>", "").replace("<audio_eos>", "")
        kinds = ("<audio", "< audio", "<sound", "<speech", "<|audio|", "<|audio_1")
        marks = sum(map(written.count, kinds))
        marks += prompt.count("<|audio_2|") + prompt.count("<|audio_start|>")
        assert placed(prompt).sounds == marks, prompt
    assert placed("<audio>a b/c.wav</audio>\nWho sings?").paths == ["a b/c.wav"]
    assert placed("Is <audio>a.wav</audio> like <audio> b.wav </audio>?").paths == [
        "a.wav",
        "b.wav",
    ]
    assert placed("<audio>Who sings?").paths == []


@pytest.mark.parametrize(("prompt", "reason"), DROPPED.items())
def test_what_cannot_be_said_in_words_is_dropped(prompt, reason):
    with pytest.raises(Drop) as caught:
        placed(prompt)
    assert caught.value.reason == reason and str(caught.value) != reason


def test_answers_have_no_marks():
    refuse_tags("<think>It barks < 3 times.</think><answer>A < B | C > D</answer>", "the answer")
    for reply in ("the second <audio>", QWEN2, "a dog<|im_end|>", "a dog</s>", "<image>"):
        with pytest.raises(Drop, match="in the answer"):
            refuse_tags(reply, "the answer")
