import json
import math

import numpy as np
import pytest

from sari_jax.cli import main
from sari_jax.errors import InputError
from sari_jax.evaluate.compare import compare, compare_results, read_judged, table


def runs(gained: int, lost: int, both: int, neither: int):
    kinds = [(False, True)] * gained + [(True, False)] * lost + [(True, True)] * both
    kinds += [(False, False)] * neither
    return tuple({f"q{i}": kind[run] for i, kind in enumerate(kinds)} for run in (0, 1))


@pytest.mark.parametrize("gained, lost", [(0, 0), (3, 3), (9, 1), (1, 9), (20, 5)])
def test_mcnemars_exact_test(gained, lost):
    told = compare(*runs(gained, lost, 30, 10))
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    assert told["p_value"] == pytest.approx(min(1.0, 2 * tail))
    assert told["difference"] == pytest.approx((gained - lost) / (40 + n))
    assert [len(told["gained"]), len(told["lost"])] == [gained, lost]
    low, high = told["interval"]
    assert low <= told["difference"] <= high


def test_the_interval_is_that_of_drawn_questions():
    one, other = runs(20, 8, 50, 22)
    first, second = (np.array(list(run.values()), float) for run in (one, other))
    drawn = np.random.default_rng(1).integers(100, size=(20_000, 100))
    expected = np.quantile((second[drawn] - first[drawn]).mean(axis=1), [0.025, 0.975])
    np.testing.assert_allclose(compare(one, other)["interval"], expected, atol=0.011)


def test_runs_over_other_questions():
    one, other = runs(1, 1, 1, 1)
    with pytest.raises(InputError, match="1 are in one alone, 'q3' the first"):
        compare(one, {name: right for name, right in other.items() if name != "q3"})
    with pytest.raises(InputError, match="both are empty"):
        compare({}, {})


def test_the_command(tmp_path, capsys):
    for name, rights in (("a", [True, False, True]), ("b", [True, True, True])):
        (tmp_path / name).mkdir()
        rows = [
            {"id": i, "right": right} for i, right in zip(("x", "<b>", "x"), rights, strict=True)
        ]
        (tmp_path / name / "judged.json").write_text(json.dumps(rows))
        (tmp_path / name / "scores.json").write_text('{"benchmark": "mmar"}')
    words = ["eval", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["gained"], told["lost"]) == (3, ["<b>"], [])
    assert main(words) == 0
    assert "difference +33.3%" in capsys.readouterr().out
    assert list(read_judged(tmp_path / "a")) == ["x", "<b>", "x #2"]
    assert main([*words[:-1], str(tmp_path)]) == 2
    assert "not what `sari eval` writes" in capsys.readouterr().err
    assert main(["eval", "--model", "m"]) == 2


def test_results_of_two_benchmarks_or_versions(tmp_path):
    known = [
        ("mmau-original", "first"),
        ("mmau-original", "later"),
        ("mmar", "first"),
        ("few", None),
    ]
    for number, (benchmark, version) in enumerate(known):
        folder = tmp_path / str(number)
        folder.mkdir()
        scores = {"benchmark": benchmark} | ({"version": version} if version else {})
        (folder / "scores.json").write_text(json.dumps(scores))
        (folder / "judged.json").write_text('[{"id": "x", "right": true}]')
        assert compare_results(folder, folder)["rows"] == 1
    for other, told in ((1, "mmau-original later"), (2, "mmar first"), (3, "few;")):
        with pytest.raises(InputError, match=f"0 is of mmau-original first, .*{other} of {told}"):
            compare_results(tmp_path / "0", tmp_path / str(other))
    (tmp_path / "0/scores.json").unlink()
    with pytest.raises(InputError, match="scores.json: not what `sari eval` writes"):
        compare_results(tmp_path / "0", tmp_path / "1")


def test_names_are_shown_escaped():
    told = compare({"\x1b[31m": False}, {"\x1b[31m": True})
    assert "\x1b" not in table(told, ("a", "b"))
