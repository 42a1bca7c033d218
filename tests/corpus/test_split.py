import pytest

from sari_jax.corpus.split import split
from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Clip
from sari_jax.errors import InputError


@pytest.fixture
def records(make_record):
    """Sixty questions about twenty clips; every fifth has no chain."""
    return [
        make_record(
            id=f"r{i}",
            audio=(Clip(f"{i % 20}.wav"),),
            **({"chain_free": None} if i % 5 == 0 else {}),
        )
        for i in range(60)
    ]


def test_no_question_twice_and_no_clip_in_both(records):
    ledger = Ledger()
    sft, rl = split(records, ledger, sft=10, rl=30, seed=1, chains="both")
    assert len(sft) == 10 and all(r.chain_free and r.chain_structured for r in sft)
    assert not {r.audio for r in sft} & {r.audio for r in rl}
    assert len({r.id for r in sft + rl}) == len(sft) + len(rl)
    report = ledger.report()
    assert report["read"] == 60 and report["kept"] == len(sft) + len(rl)
    assert set(report["dropped"]) == {"not needed", "sound is in the SFT part"}
    numbers = [int(r.id[1:]) for r in rl]
    assert numbers == sorted(numbers)


def test_spans_and_second_clips_of_a_file_stay_together(make_record):
    audio = [
        (Clip("a.wav"),), (Clip("a.wav", 0, 1),), (Clip("b.wav"), Clip("a.wav")), (Clip("b.wav", 1),),
        (Clip("c.wav"),),
    ]  # fmt: skip
    some = [make_record(id=str(i), audio=clips) for i, clips in enumerate(audio)]
    for seed in range(6):
        sft, rl = split(some, Ledger(), sft=1, rl=9, seed=seed)
        assert (sft[0].id == "4") == (len(rl) == 4)
        assert [r.id for r in rl] == (["4"] if sft[0].id != "4" else ["0", "1", "2", "3"])


def test_questions_whose_chains_are_yet_to_be_written(records):
    bare = [r for r in records if r.chain_free is None]
    for chains, lacking in (("free", "chain_free"), ("both", "chain_structured and chain_free")):
        with pytest.raises(InputError, match=f"0 have {lacking};.*--chains none"):
            split(bare, Ledger(), sft=3, rl=0, chains=chains)
    with pytest.raises(
        InputError, match="50 questions are asked for SFT, and 12 are there; lower --sft$"
    ):
        split(bare, Ledger(), sft=50, rl=0, chains="none")
    for chains in ("structured", "none"):
        sft, _ = split(bare, Ledger(), sft=3, rl=0, chains=chains)
        assert len(sft) == 3


def test_only_the_seed_decides(records):
    parts = [split(records, Ledger(), sft=10, rl=30, seed=seed) for seed in (1, 1, 2)]
    assert parts[0] == parts[1] != parts[2]


def test_all_may_be_asked_for_and_not_more(records):
    sft, rl = split(records, Ledger(), sft=0, rl=100)
    assert (sft, len(rl)) == ([], 60)
    with pytest.raises(InputError, match="50 questions are asked for SFT, and 48 have chain_free"):
        split(records, Ledger(), sft=50, rl=0, chains="free")
