import json

import numpy as np
import pytest
import soundfile

from sari_jax.cli import main
from sari_jax.data.records import Clip, write_records


def test_the_command(tmp_path, make_record, capsys):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, 16_000), 16_000)
    write_records(tmp_path / "a.jsonl", [make_record(audio=(Clip(str(tmp_path / "a.wav")),))])
    words = ["data", "clean", "--data", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*words, "--workers", "1", "--balance-lengths", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 1
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "option",
    [("--seconds", "0"), ("--seconds", "nan"), ("--max-bad-fraction", "2"), ("--workers", "-1")],
)
def test_options_out_of_range(option):
    with pytest.raises(SystemExit) as caught:
        main(["data", "clean", "--data", "x", "--out", "y", *option])
    assert caught.value.code == 2
