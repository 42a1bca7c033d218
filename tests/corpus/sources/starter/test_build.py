"""The corpus on disk, small: the same bits for a seed, records that can be used, splits that share no source."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import soundfile

from sari_jax.corpus.sources.starter.build import WEIGHTS, build, sources_of
from sari_jax.corpus.sources.starter.questions import DIFFICULTIES, KINDS
from sari_jax.data.records import SECTIONS, read_records
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError

SIZES = {"train": 96, "validation": 12, "test": 24}  # of `starter_dir`


@pytest.fixture(scope="module")
def corpus(starter_dir) -> tuple[Path, dict]:
    return starter_dir, json.loads((starter_dir / "summary.json").read_text())


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.tools
def test_a_seed_gives_the_same_bits(tmp_path):
    sizes = {"train": 24, "validation": 12, "test": 24}
    for out in ("once", "again"):
        summary = build(tmp_path / out, seed=7, **sizes)
        assert summary == json.loads((tmp_path / out / "summary.json").read_text())
    assert digests(tmp_path / "once") == digests(tmp_path / "again")
    assert len(digests(tmp_path / "once" / "audio")) == sum(sizes.values())


@pytest.mark.tools
def test_another_seed_gives_others(tmp_path):
    for seed in (1, 2):
        build(tmp_path / str(seed), seed=seed, train=12, validation=0, test=0)
    first, second = (read_records(tmp_path / str(seed) / "train.jsonl") for seed in (1, 2))
    assert [r.choices for r in first] != [r.choices for r in second]


def test_records_can_be_used_as_they_are(corpus):
    out, summary = corpus
    for split, size in SIZES.items():
        records = read_records(out / f"{split}.jsonl")
        assert len(records) == size == summary["splits"][split]["questions"]
        assert {record.kind for record in records} == {
            record.kind for record in records[: len(KINDS)]
        }
        for record in records:
            assert tuple(record.chain_structured) == SECTIONS
            assert record.chain_free and record.licence and record.difficulty
            assert record.source.startswith("starter/")


def test_clips_are_short_mono_and_16_khz(corpus):
    out, _ = corpus
    clips = list((out / "audio").iterdir())
    assert len(clips) == sum(SIZES.values())
    for clip in clips:
        info = soundfile.info(clip)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert 0.4 < info.duration <= 3.15
        assert abs(soundfile.read(clip)[0]).max() > 0.02


@pytest.mark.parametrize("style", STYLES.values(), ids=lambda style: style.name)
def test_every_record_renders_in_every_style(starter_dir, style):
    for record in read_records(starter_dir / "train.jsonl"):
        text = style.render(record)
        assert style.matches(text), text
        assert style.answer(text) == record.choices[record.answer_index]


def test_clips_grow_harder(starter_dir):
    """More choices, and over more noise: the silence that every clip begins with tells."""
    records, silence = read_records(starter_dir / "train.jsonl"), {}
    for record in records:
        assert len(record.choices) == DIFFICULTIES[record.difficulty]
        samples, _ = soundfile.read(record.audio[0].path)
        silence.setdefault(record.difficulty, []).append(samples[:800].std())
    assert max(silence["easy"]) < min(silence["medium"]) and max(silence["medium"]) < min(
        silence["hard"]
    )
    for difficulty, share in WEIGHTS.items():
        assert abs(len(silence[difficulty]) / len(records) - share) < 0.1


def test_paths_are_relative_so_that_the_corpus_can_be_moved(corpus):
    out, _ = corpus
    for line in (out / "train.jsonl").read_text().splitlines():
        (clip,) = json.loads(line)["audio"]
        assert not Path(clip["path"]).is_absolute() and (out / clip["path"]).is_file()


def test_nothing_of_test_is_heard_in_training(corpus):
    out, summary = corpus
    heard = {
        split: {
            source
            for record in read_records(out / f"{split}.jsonl")
            for source in sources_of(record)
        }
        for split in SIZES
    }
    assert not heard["test"] & (heard["train"] | heard["validation"])
    assert {split: set(told["sources"]) for split, told in summary["splits"].items()} == heard
    assert json.loads((out / "summary.json").read_text()) == summary


def test_every_source_has_its_licence(corpus):
    out, summary = corpus
    told = (out / "LICENCES.md").read_text()
    for split in summary["splits"].values():
        assert all(f"| {source} | " in told for source in split["sources"])


def test_chance_is_about_a_third(corpus):
    for split in corpus[1]["splits"].values():
        assert 0.25 <= split["chance"] <= 0.42
        assert sum(split["choices"].values()) == split["questions"]


def test_a_place_that_is_taken(corpus):
    out, _ = corpus
    before = digests(out)
    with pytest.raises(InputError, match="exists and is not empty"):
        build(out, **SIZES)
    assert digests(out) == before


def test_a_seed_below_zero(tmp_path):
    with pytest.raises(InputError, match="seed -1"):
        build(tmp_path / "out", seed=-1)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        build(tmp_path / "file" / "out", train=1, validation=0, test=0)


def test_a_stopped_build_leaves_nothing(tmp_path, monkeypatch):
    def stopped(rng, difficulty):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[build.__module__], "KINDS", (KINDS[0], stopped))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", train=2, validation=0, test=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["espeakng_loader", "librosa"])
def test_without_a_package_nothing_is_written(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"needs {name}; pip install 'sari_jax\[corpus\]'"):
        build(tmp_path / "starter", train=1, validation=0, test=0)
    assert not (tmp_path / "starter").exists()
