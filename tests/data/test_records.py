"""Records in and out of JSONL, and what is said of lines that cannot be used."""

import json

import pytest

from sari_jax.data.records import Clip, read_records, write_records
from sari_jax.errors import InputError

GOOD = {
    "id": "a",
    "audio": [{"path": "dog.wav"}],
    "question": "Which animal?",
    "choices": ["cat", "dog"],
    "answer_index": 1,
    "task": "sound",
    "source": "made up",
    "licence": "CC0-1.0",
}


@pytest.fixture
def write(tmp_path):
    (tmp_path / "dog.wav").write_bytes(b"only its presence counts here")

    def write(*lines: dict | str):
        path = tmp_path / "records.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return path

    return write


def test_what_is_written_is_read(tmp_path, make_record):
    for name in ("dog.wav", "cat.wav"):
        (tmp_path / name).write_bytes(b"")
    records = [
        make_record(
            id="1",
            audio=(Clip(str(tmp_path / "dog.wav"), 0.5, 2.0), Clip(str(tmp_path / "cat.wav"))),
        ),
        make_record(
            id="2",
            audio=(Clip(str(tmp_path / "cat.wav"), end=3.0),),
            kind="count",
            difficulty="hard",
        ),
        make_record(
            id="3", audio=(Clip(str(tmp_path / "dog.wav")),), pass_rate=0.25, chain_structured=None
        ),
        make_record(
            id="4", audio=(Clip(str(tmp_path / "dog.wav")),), question="Où ?\u2028Wo?\x85どこ？"
        ),
    ]
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cat.wav",
        "dog.wav",
        "records.jsonl",
    ]


def test_fields_without_a_value_are_left_out(tmp_path, make_record):
    write_records(tmp_path / "records.jsonl", [make_record(chain_structured=None, chain_free=None)])
    line = json.loads((tmp_path / "records.jsonl").read_text())
    assert line["audio"] == [{"path": "dog.wav"}]
    assert not {"kind", "pass_rate", "chain_structured", "chain_free"} & line.keys()


def test_paths_are_taken_from_the_files_folder_or_from_the_audio_root(write, tmp_path):
    (record,) = read_records(write(GOOD))
    assert record.audio == (Clip(str(tmp_path / "dog.wav")),)
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds/dog.wav").write_bytes(b"")
    (record,) = read_records(write(GOOD), audio_root=tmp_path / "sounds")
    assert record.audio == (Clip(str(tmp_path / "sounds/dog.wav")),)


def test_a_relative_file_gives_absolute_paths(write, tmp_path, monkeypatch):
    monkeypatch.chdir(write(GOOD).parent)
    (record,) = read_records("records.jsonl")
    assert record.audio[0].path == str(tmp_path / "dog.wav")


def test_sound_need_not_be_there_when_nobody_listens(write):
    path = write(GOOD | {"audio": [{"path": "absent.wav"}]})
    assert read_records(path, check_audio=False)
    with pytest.raises(InputError, match="absent.wav is missing"):
        read_records(path)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("{", "not JSON"),
        pytest.param("[" * 100_000, "not JSON", id="too deep"),
        ('{"id": "\\ud83d"}', "not JSON"),
        ("[1]", "not a JSON object"),
        ({"id": "a"}, "lacks answer_index, audio, choices, licence, question, source, task"),
        (GOOD | {"id": 7}, "id must be text"),
        (GOOD | {"question": " "}, "question must be text that is not empty"),
        (GOOD | {"task": "noise"}, "task 'noise' must be one of sound, music, speech"),
        (GOOD | {"choices": ["dog"]}, "at least two"),
        (GOOD | {"choices": "dog"}, "at least two"),
        (GOOD | {"choices": ["dog", ""]}, "at least two texts"),
        (GOOD | {"answer_index": 2}, "answer_index 2 must be from 0 to 1"),
        (GOOD | {"answer_index": -1}, "answer_index -1 must be from 0 to 1"),
        (GOOD | {"answer_index": "1"}, "answer_index '1'"),
        (GOOD | {"answer_index": True}, "answer_index True"),
        (GOOD | {"pass_rate": 1.5}, "pass_rate 1.5 must be from 0 to 1"),
        (GOOD | {"pass_rate": float("nan")}, "pass_rate nan"),
        (GOOD | {"chain_structured": ["plan"]}, "chain_structured must map"),
        (GOOD | {"chain_structured": {"planning": None}}, "chain_structured must map"),
        (GOOD | {"chain_free": 3}, "chain_free must be text"),
        (GOOD | {"kind": []}, "kind must be text"),
        (GOOD | {"audio": []}, "audio must be a list of one or more"),
        (GOOD | {"audio": "dog.wav"}, "audio must be a list"),
        (GOOD | {"audio": ["dog.wav"]}, "audio must be a list"),
        (GOOD | {"audio": [{"path": ""}]}, "audio must be a list"),
        (GOOD | {"audio": [{"path": "x" * 10_000}]}, "is missing"),
        (GOOD | {"audio": [{"path": "a\0b"}]}, "is missing"),
        (GOOD | {"audio": [{"path": "dog.wav", "start": "0"}]}, "start '0' must be seconds"),
        (GOOD | {"audio": [{"path": "dog.wav", "start": -1}]}, "start -1 must be seconds"),
        (GOOD | {"audio": [{"path": "dog.wav", "end": float("inf")}]}, "end inf must be seconds"),
        (
            GOOD | {"audio": [{"path": "dog.wav", "start": 2, "end": 2}]},
            "end 2 must be after its start 2",
        ),
        (GOOD | {"audio": [{"path": "dog.wav", "end": 0}]}, "end 0 must be after its start 0"),
    ],
)
def test_a_bad_line_is_told_with_file_line_and_reason(write, line, reason):
    path = write(GOOD | {"id": "first"}, line)
    with pytest.raises(InputError) as caught:
        read_records(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ") and reason in message and "\n" not in message
    assert "1 of 2 lines are bad, 0.0% allowed" in message


def test_few_bad_lines_are_skipped_and_counted(write, capsys):
    path = write(GOOD, "nonsense", "", GOOD | {"id": "b"}, GOOD | {"id": "c"}, GOOD)
    records = read_records(path, max_bad_fraction=0.4)
    assert [record.id for record in records] == ["a", "b", "c"]
    told = capsys.readouterr().err
    assert f"skipped {path}:2: not JSON" in told
    assert f"skipped {path}:6: id 'a' occurs twice" in told
    assert f"{path}: 2 of 5 lines skipped" in told
    with pytest.raises(
        InputError, match=r":2: .*2 of 5 lines are bad, 30.0% allowed.*max_bad_fraction"
    ):
        read_records(path, max_bad_fraction=0.3)


@pytest.mark.parametrize("lines", [(), ("", " "), ("nonsense",)])
def test_a_file_without_a_record(write, lines):
    with pytest.raises(InputError, match="holds no record"):
        read_records(write(*lines), max_bad_fraction=1.0)


def test_a_choice_may_stand_twice_as_some_of_mmau_do(write):
    choices = ["thirteen", "twenty", "thirteen"]
    (record,) = read_records(write(GOOD | {"choices": choices, "answer_index": 2}))
    assert (list(record.choices), record.answer_index) == (choices, 2)


def test_fields_of_others_are_passed_over(write):
    assert read_records(write(GOOD | {"video_id": 3}))[0].id == "a"


def test_a_byte_order_mark_is_no_matter(write):
    path = write(GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_records(path)[0].id == "a"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_records(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="a folder; name a file in it"):
        read_records(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_records(tmp_path / "latin.jsonl")


def test_a_place_that_cannot_be_written(tmp_path, make_record):
    with pytest.raises(InputError, match="cannot be written"):
        write_records(tmp_path / "absent" / "records.jsonl", [make_record()])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_records(tmp_path / "file" / "records.jsonl", [make_record()])


def test_a_stopped_write_leaves_the_old_file(tmp_path, make_record):
    path = tmp_path / "records.jsonl"
    write_records(path, [make_record()])
    before = path.read_text()

    def stopped():
        yield make_record(id="other")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(path, stopped())
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["records.jsonl"]
