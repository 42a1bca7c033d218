"""The sounds of the starter corpus: notes, recordings and words, from different sources for train and for test."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from sari_jax import assets
from sari_jax.audio.files import load_waveform
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.corpus.sources.starter.speech import Speaker, trim
from sari_jax.errors import InputError

# General MIDI programs, the two most alike of each family.
INSTRUMENTS = {
    "piano": (0, 1),
    "organ": (16, 19),
    "guitar": (24, 25),
    "strings": (48, 49),
    "choir": (52, 53),
    "trumpet": (56, 59),
    "flute": (73, 74),
    "bells": (9, 14),
}
# Drum-kit keys (program None), or a program and a key.
EFFECTS = {
    "kick drum": (None, 36),
    "snare drum": (None, 38),
    "hand clap": (None, 39),
    "cymbal": (None, 49),
    "cowbell": (None, 56),
    "whistle": (None, 72),
    "birdsong": (123, 60),
    "telephone": (124, 60),
    "helicopter": (125, 60),
    "applause": (126, 60),
    "gunshot": (127, 60),
}
WORDS = (
    "one two three four five six seven eight nine "
    "red green blue yellow black white "
    "dog cat horse bird fish "
    "house water apple window garden"
).split()
# Language -> espeak-ng's code and phrases in it.
PHRASES = {
    "English": (
        "en-us",
        (
            "good morning my friend",
            "where is the station",
            "the weather is nice today",
            "I would like some water",
            "thank you very much",
        ),
    ),
    "French": (
        "fr",
        (
            "bonjour mon ami",
            "où est la gare",
            "il fait beau aujourd'hui",
            "je voudrais de l'eau",
            "merci beaucoup madame",
        ),
    ),
    "German": (
        "de",
        (
            "guten Morgen mein Freund",
            "wo ist der Bahnhof",
            "das Wetter ist heute schön",
            "ich möchte etwas Wasser",
            "vielen herzlichen Dank",
        ),
    ),
    "Spanish": (
        "es",
        (
            "buenos días amigo mío",
            "dónde está la estación",
            "hoy hace buen tiempo",
            "quisiera un poco de agua",
            "muchas gracias señora",
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Sources:
    """The soundfont, the voices and the recordings of a split."""

    soundfont: str
    voices: tuple[str, ...]
    recordings: str
    speaker: str | None = None  # recorded words

    @property
    def names(self) -> set[str]:
        """All sources that a clip can come from, to check that splits are disjoint."""
        return {
            self.soundfont,
            self.recordings,
            *(f"espeak-ng+{voice}" for voice in self.voices),
        } | ({self.speaker} if self.speaker else set())


TRAIN = Sources(
    "timgm6mb",
    ("m1", "m3", "m4", "m6", "f1", "f2", "f5", "Andy", "Alicia", "belinda"),
    "arcade-sounds",
)
TEST = Sources(
    "fluidr3", ("m2", "m5", "m7", "f3", "f4", "Michael", "linda"), "sonic-pi", "asterisk-en"
)
SPLITS = {"train": TRAIN, "validation": TRAIN, "test": TEST}

# Short single events of the recording sets, by file name without suffix. Of sonic-pi only those that Debian lists as
# CC0.
RECORDED_EVENTS = {
    "arcade-sounds": (
        "coin1 coin2 coin3 error1 error2 hit1 hit2 hit3 hit4 hurt1 hurt2 hurt3 jump1 jump2 jump3 "
        "laser1 laser2 laser3 rockHit2"
    ).split(),
    "sonic-pi": (
        "elec_beep elec_bell elec_blip elec_blip2 elec_bong elec_ping elec_plip elec_pop elec_triangle "
        "elec_twip elec_wood perc_snap perc_snap2 drum_cowbell drum_tom_hi_hard drum_tom_mid_hard "
        "misc_crow tabla_na"
    ).split(),
}
# Recordings that are one of EFFECTS.
RECORDED_EFFECTS = {
    "arcade-sounds": {},
    "sonic-pi": {
        "kick drum": ("bd_haus", "bd_klub", "bd_pure", "drum_heavy_kick"),
        "snare drum": ("drum_snare_hard", "drum_snare_soft", "sn_dolf"),
        "cymbal": ("drum_cymbal_hard", "drum_cymbal_open", "drum_splash_hard"),
        "cowbell": ("drum_cowbell",),
    },
}
DIGITS = dict(
    zip("one two three four five six seven eight nine".split(), range(1, 10), strict=True)
)


class Material:
    """Renders a split's sounds on demand and caches them. Most methods return a sound with the name of its source."""

    def __init__(self, sources: Sources):
        self.sources = sources
        # Caches of this object: one of the class would keep every material for good.
        self.note = functools.cache(self.note)
        self.recording = functools.cache(self.recording)
        self.word = functools.cache(self.word)
        self.phrase = functools.cache(self.phrase)

    @functools.cached_property
    def _speaker(self) -> Speaker:
        return Speaker()

    @functools.cached_property
    def _synth(self) -> tuple:
        try:
            import tinysoundfont
        except ImportError as error:
            raise InputError(
                "sari data build starter needs tinysoundfont; pip install --no-deps tinysoundfont"
            ) from error
        (path,) = assets.fetch(self.sources.soundfont).glob("*.sf2")
        synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE)
        return synth, synth.sfload(str(path))

    def note(self, program: int | None, key: int, seconds: float) -> Float[np.ndarray, "S"]:
        """Renders a note, held for 0.7 of `seconds`; mono, with peak 0.5. Program None is the drum kit."""
        synth, font = self._synth
        channel, bank = (9, 128) if program is None else (0, 0)
        synth.program_select(channel, font, bank, program or 0)
        synth.noteon(channel, key, 105)
        held = self._generate(0.7 * seconds)
        synth.noteoff(channel, key)
        samples = np.concatenate([held, self._generate(0.3 * seconds)])
        synth.sounds_off()
        fade = np.minimum(1.0, np.arange(len(samples))[::-1] / (0.02 * SAMPLE_RATE))
        return (samples * fade * (0.5 / max(float(np.abs(samples).max()), 1e-6))).astype(np.float32)

    def _generate(self, seconds: float) -> np.ndarray:
        stereo = np.frombuffer(
            bytes(self._synth[0].generate(int(seconds * SAMPLE_RATE))), np.float32
        )
        return stereo.reshape(-1, 2).mean(axis=1)

    def instrument(self, family: str, key: int, seconds: float, variant: int) -> np.ndarray:
        programs = INSTRUMENTS[family]
        return self.note(programs[variant % len(programs)], key, seconds)

    def effect(self, name: str, variant: int) -> tuple[np.ndarray, str]:
        """Returns a named sound effect, from the soundfont or from a recording if there is one."""
        recorded = RECORDED_EFFECTS[self.sources.recordings].get(name, ())
        if recorded and variant % 2:
            return self.recording(recorded[variant // 2 % len(recorded)]), self.sources.recordings
        program, key = EFFECTS[name]
        if program is None:
            return self.note(None, key, 0.6), self.sources.soundfont
        return self.note(program, key + variant % 5, 0.9), self.sources.soundfont

    def event(self, variant: int) -> tuple[np.ndarray, str]:
        """Returns some short event: a recording or a drum."""
        events = RECORDED_EVENTS[self.sources.recordings]
        if variant % 3:
            samples = self.recording(events[variant // 3 % len(events)])
            return samples[: int(0.35 * SAMPLE_RATE)], self.sources.recordings
        key = (36, 38, 39, 45, 56, 60)[variant // 3 % 6]
        return self.note(None, key, 0.35), self.sources.soundfont

    def recording(self, stem: str) -> Float[np.ndarray, "S"]:
        folder = assets.fetch(self.sources.recordings)
        path = min(p for p in folder.glob(f"{stem}.*") if p.suffix in (".wav", ".flac", ".ogg"))
        return trim(load_waveform(path))[: int(0.9 * SAMPLE_RATE)]

    def word(self, word: str, variant: int) -> tuple[np.ndarray, str]:
        """Returns a spoken word. Every third digit of the test split is by the recorded speaker."""
        if self.sources.speaker and word in DIGITS and variant % 3 == 0:
            path = assets.fetch(self.sources.speaker) / "digits" / f"{DIGITS[word]}.wav"
            return trim(load_waveform(path)), self.sources.speaker
        return self.phrase(word, "en-us" if variant % 2 else "en", variant)

    def phrase(self, text: str, language: str, variant: int) -> tuple[np.ndarray, str]:
        voice = self.sources.voices[variant % len(self.sources.voices)]
        pace = 150 + 15 * (variant // len(self.sources.voices) % 3)
        return self._speaker.say(text, f"{language}+{voice}", pace), f"espeak-ng+{voice}"
