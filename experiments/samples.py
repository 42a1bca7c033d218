"""Small samples of every source in its authors' format, with rows that must be dropped.

The files are those of the tests. The clips, all different, are made here.
"""

import shutil
from pathlib import Path

import numpy as np
import soundfile

FILES = Path(__file__).parents[1] / "tests" / "corpus" / "sources" / "samples"
SAMPLE_RATE = 16_000
SECONDS = 0.5

# Source -> its file, and the clips in its folder of audio files.
SAMPLES = {
    "avqa": (
        "train_qa.json",
        ["-HIPq7T3eFI_000011.wav", "0a1b2c3d4e5_30.wav", "-HG3Omg_89c_000030.wav"],
    ),
    "musicbench": (
        "MusicBench_train.json",
        ["data/tone_a.wav", "data_aug2/tone_b_1.wav", "data/tone_c.wav"],
    ),
    "audioset": (
        "balanced_train_segments.csv",
        [
            "-0RWZT-miFs.wav",
            "Y0aBcDeFgHiJ.flac",
            "1aBcDeFgHiJ_0_10.wav",
            "2aBcDeFgHiJ_50000_60000.flac",
        ],
    ),
    "meld": (
        "train_sent_emo.csv",
        [f"dia{d}_utt{u}.wav" for d, u in ((0, 0), (0, 1), (0, 2), (1, 1))],
    ),
    "clotho-aqa": ("clotho_aqa_train.csv", ["Birds.wav", "Rain on roof.wav", "Engine.wav"]),
    "audiomcq": ("audiomcq.jsonl", ["AudioCaps/17.wav", "mtt/4.wav", "meld/1.wav"]),
    "cota": ("cota.jsonl", ["meld/wavs/0000001.wav", "audioset/7.wav"]),
    "r1aqa": ("r1aqa.jsonl", ["wavs/-HIPq7T3eFI_11.wav", "wavs/tone.wav"]),
    "swift": ("swift.jsonl", ["a.wav", "b.wav"]),
    "echoink": ("omni_rl_format_train.json", ["audios/sample_0.wav"]),
    "jsonl": ("records.jsonl", ["a.wav", "b.wav"]),
}
BESIDE = {"audioset": ["class_labels_indices.csv"]}
EMPTY = {"avqa": ["empty_file_1_000005.wav"]}


def write_samples(folder: Path | str) -> dict[str, tuple[Path, Path]]:
    """Writes all samples below `folder`; returns each source's input file and folder of audio files."""
    written = {}
    for number, name in enumerate(SAMPLES):
        written[name] = write_sample(name, Path(folder) / name, seed=100 * number)
    return written


def write_sample(name: str, folder: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """Writes one source's sample; returns its input file and folder of audio files."""
    file, clips = SAMPLES[name]
    sounds = folder / "sounds"
    sounds.mkdir(parents=True)
    for other in (file, *BESIDE.get(name, [])):
        shutil.copyfile(FILES / other, folder / other)
    for number, clip in enumerate(clips):
        path = sounds / clip
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, _sound(seed + number), SAMPLE_RATE)
    for clip in EMPTY.get(name, []):
        (sounds / clip).touch()
    return folder / file, sounds


def _sound(seed: int) -> np.ndarray:
    """Returns three tones over a little noise; they depend on the seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * hertz * time) for hertz in rng.uniform(150, 3000, 3)]
    return 0.2 * np.mean(tones, axis=0) + 0.02 * rng.standard_normal(len(time))
