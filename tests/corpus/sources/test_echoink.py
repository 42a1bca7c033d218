"""EchoInk: lettered options without their letters, and the sound without its image."""

from sari_jax.data.records import Clip


def test_the_sample(built):
    found = built("echoink")
    record = found.records["echoink-0"]
    assert len(found.records) == 1
    assert record.audio == (Clip(str(found.sounds / "audios/sample_0.wav")),)
    assert record.question == "What is the main sound of the audio?"
    assert record.choices == ("Car", "motorcycle", "siren", "gun fire")
    assert (record.answer_index, record.task, record.source) == (2, "sound", "echoink")
    assert found.drops == [
        (1, "visual question"),
        (2, "answer not among the choices"),
        (3, "bad field"),
        (4, "sound file missing"),
    ]
    assert found.report["read"] == 5
