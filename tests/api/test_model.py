import numpy as np
import pytest
import soundfile

import sari_jax as sari
from sari_jax.errors import InputError
from sari_jax.evaluate.parity import Parity

SETTINGS = dict(style="direct", max_tokens=6)


@pytest.fixture(scope="module")
def model(small_model):
    return sari.load(small_model)


@pytest.fixture(scope="module")
def tone():
    return (0.3 * np.sin(np.arange(16_000) / 9)).astype(np.float32)


@pytest.fixture(scope="module")
def path(tone, tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "tone.wav"
    soundfile.write(path, tone, 16_000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def answer(model, path):
    return model.ask(path, "Which is it?", choices=("cat", "dog"), **SETTINGS)


def test_an_answer_holds_what_was_asked_and_what_came(model, answer):
    assert answer.prompt.count("<|AUDIO|>") == 1 and "- dog" in answer.prompt
    assert 1 <= len(answer.token_ids) <= 6 and len(answer.logprobs) == len(answer.token_ids)
    assert all(logprob <= 0 for logprob in answer.logprobs)
    assert answer.done == (answer.token_ids[-1] in model.engine.processor.end_ids)
    tokens = np.array([answer.token_ids])
    texts = model.engine.processor.texts(tokens, np.array([tokens.size]))
    assert [answer.completion] == texts
    assert answer.answer is None and answer.sections == {}


def test_every_form_of_audio_is_the_same_audio(model, path, tone, answer):
    for audio in (
        str(path),
        [path],
        (tone,),
        tone,
        sari.Clip(str(path)),
        sari.Clip(str(path), 0.0, 1.0),
    ):
        assert model.ask(audio, "Which is it?", ("cat", "dog"), **SETTINGS) == answer
    half = model.ask(sari.Clip(str(path), 0.0, 0.5), "Which is it?", ("cat", "dog"), **SETTINGS)
    assert half.logprobs != answer.logprobs


def test_several_completions_of_several_questions(model, path, tone):
    asked = sari.Question(path, "Which is it?", ("cat", "dog"))
    other = sari.Question([tone[:8000]], "What is it?")
    few = dict(num_completions=2, temperature=1.0, seed=3, **SETTINGS)
    both = model.generate([asked, other], **few)
    assert [len(answers) for answers in both] == [2, 2]
    assert "- cat" in both[0][0].prompt and "Choose" not in both[1][0].prompt
    one = model.generate(asked, **few)
    assert [a.token_ids for a in one] == [a.token_ids for a in both[0]]
    assert one[0].token_ids != one[1].token_ids
    assert model.generate([], **few) == []


def test_a_record_is_a_question(model, make_record, path, answer):
    record = make_record(
        audio=(sari.Clip(str(path)),), question="Which is it?", choices=("cat", "dog")
    )
    (found,) = model.generate(record, num_completions=1, temperature=0.0, **SETTINGS)
    assert found == answer


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        ("nowhere.wav", "nowhere.wav: no such sound file"),
        (np.zeros((2, 16_000), np.float32), r"shape \(2, 16000\) .* one channel of finite floats"),
        (np.zeros(16_000, np.int16), "type int16 cannot be used"),
        (np.full(16_000, np.nan), "finite floats"),
        (np.zeros(31 * 16_000, np.float32), "clip 1: 31.0 s"),
    ],
)
def test_audio_that_cannot_be_used(model, audio, reason):
    with pytest.raises(InputError, match=reason):
        model.ask(audio, "Which is it?")


def test_settings_that_cannot_be_used(model, path, small_model, tmp_path):
    with pytest.raises(InputError, match="style 'strctured' is unknown"):
        model.ask(path, "Which is it?", style="strctured")
    with pytest.raises(InputError, match="max_tokens = 0"):
        model.ask(path, "Which is it?", max_tokens=0)
    with pytest.raises(InputError, match="dtype 'float16' is unknown; choose float32 or bfloat16"):
        sari.load(small_model, dtype="float16")
    with pytest.raises(InputError, match="no config.json"):
        sari.load(tmp_path)


def test_check_compares_what_is_loaded(model, monkeypatch):
    seen = []
    parity = Parity(max_abs_logit_diff=0.0, mean_kl=0.0, greedy_equal=True, ok=True)

    def check(directory, *, engine):
        seen.append((directory, engine))
        return parity

    monkeypatch.setattr("sari_jax.api.model.check_parity", check)
    assert model.check() is parity
    assert seen == [(model.directory, model.engine)]
    assert repr(model) == f"Model({str(model.directory)!r}, dtype='float32')"
