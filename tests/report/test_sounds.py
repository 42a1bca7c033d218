import base64
import io

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from sari_jax.errors import InputError
from sari_jax.report.sounds import COLUMNS, LONGEST, MELS, PEAKS, read_sound

RATE = 16_000


def tone(seconds, loud=0.5):
    time = np.arange(round(seconds * RATE)) / RATE
    return (loud * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)


def decoded(url):
    kind, data = url.split(";base64,")
    return kind, io.BytesIO(base64.b64decode(data))


def test_a_page_plays_what_the_file_holds(tmp_path):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.concatenate([tone(1.0), np.zeros(RATE, np.float32)]), RATE)
    sound = read_sound(str(clip))
    kind, file = decoded(sound.mp3)
    assert kind == "data:audio/mpeg" and sound.seconds == 2 and not sound.shortened
    audio, rate = soundfile.read(file)
    assert rate == RATE and abs(len(audio) - 2 * RATE) < 0.2 * RATE
    assert np.argmax(np.abs(np.fft.rfft(audio[2000 : 2000 + RATE // 2]))) == 500  # 1000 Hz
    assert len(file.getvalue()) < 2 * 5200 + 1000

    assert len(sound.peaks) == PEAKS and max(sound.peaks) == 100
    assert min(sound.peaks[:79]) > 90 and max(sound.peaks[82:]) == 0
    kind, file = decoded(sound.spectrogram)
    image = imread(file, format="webp")
    assert kind == "data:image/webp" and image.shape[0] == MELS and image.shape[1] <= COLUMNS + 1
    light = image[..., :3].sum(-1)
    assert light[:, : light.shape[1] // 2 - 8].max() > 2 * light[:, light.shape[1] // 2 + 8 :].max()
    assert MELS // 3 < MELS - int(np.argmax(light[:, 40])) < MELS // 2  # from below: 1000 Hz


def test_a_span_and_a_long_clip(tmp_path):
    clip = tmp_path / "clip.flac"
    soundfile.write(clip, tone(33.0), RATE)
    span = read_sound(str(clip), 1.0, 1.5)
    assert span.seconds == 0.5 and not span.shortened
    whole = read_sound(str(clip))
    assert whole.seconds == 33 and whole.shortened
    audio, _ = soundfile.read(decoded(whole.mp3)[1])
    assert abs(len(audio) / RATE - LONGEST) < 0.2


def test_silence_and_a_very_short_clip_have_a_picture_too(tmp_path):
    for name, wave in (("silence", np.zeros(RATE)), ("short", tone(0.03))):
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE)
        sound = read_sound(str(tmp_path / f"{name}.wav"))
        assert sound.peaks and sound.size > 100


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.wav"):
        read_sound(str(tmp_path / "gone.wav"))
