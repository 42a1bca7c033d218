import base64
import hashlib
import json
import math
import re
import shutil

import pytest
from workdirs import HOSTILE, STEPS, hostile_result, hostile_run

from sari_jax.cli import main


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return [hostile_run(folder), hostile_result(folder)]


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    return out.read_text()


@pytest.mark.tools
def test_the_summary_counts_what_is_on_the_page(folders, tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("an older page")
    words = [*map(str, folders), "--out", str(out), "--png", str(tmp_path / "png"), "--json"]
    assert main(["report", *words]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary.pop("megabytes") == pytest.approx(out.stat().st_size / 2**20, abs=0.01)
    assert summary.pop("pictures") == [
        str(tmp_path / "png" / f"{name}.png")
        for name in (
            "held_out_accuracy",
            "reward",
            "accuracy",
            "pass_rates_0",
            "by_0",
            "by_1",
        )
    ]
    assert summary == {
        "out": str(out),
        **{"runs": 1, "results": 1, "charts": 6, "questions": 2, "visits": 2 * STEPS},
        **{"clips": 2, "clips_left_out": 0, "clips_missing": 1},
    }
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "png"}


def test_no_text_becomes_markup(page, folders):
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert HOSTILE not in page and "window.taken = true</script>" not in page
    assert "<img" not in own and "onerror='" not in own
    assert "&lt;/script&gt;&lt;script&gt;window.taken" in own  # where the template shows it
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    (question, _) = json.loads(data[1])["questions"]
    assert question["choices"] == [HOSTILE, "dog"] and question["question"] == f"Which? {HOSTILE}"
    text = "".join(piece for _, piece in question["visits"][0]["completions"][1]["spans"])
    assert text == HOSTILE


def test_it_asks_nothing_of_the_network_and_runs_no_script_but_its_own(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(scripts) == 2
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#|data:)', own)


def test_what_has_no_room_is_left_out(folders, tmp_path, capsys, monkeypatch):
    words = ["report", str(folders[0]), "--out", str(tmp_path / "page.html"), "--json"]
    monkeypatch.setattr("sari_jax.report.page.MARGIN", 0)
    page = tmp_path / "page.html"
    summaries = []
    assert main(words) == 0
    for _ in range(2):  # first without a sound, then with fewer visits
        size = page.stat().st_size - 600
        monkeypatch.setattr("sari_jax.report.page.MEGABYTE", size // 6)
        capsys.readouterr()
        assert main([*words, "--megabytes", "6"]) == 0
        assert page.stat().st_size <= size
        summaries.append(json.loads(capsys.readouterr().out))
    assert [row["clips_left_out"] for row in summaries] == [2, 2]
    assert [row["visits"] for row in summaries] == [2 * STEPS, 4]
    monkeypatch.setattr("sari_jax.report.page.MEGABYTE", 1000)
    assert main([*words, "--megabytes", "6"]) == 2
    assert "raise --megabytes" in capsys.readouterr().err


def test_numbers_and_names_that_json_or_utf_8_has_not_got(folders, tmp_path, capsys):
    workdir = tmp_path / b"half \xff".decode("utf-8", "surrogateescape")
    shutil.copytree(folders[0], workdir)
    sample = json.loads((workdir / "samples.jsonl").read_text().splitlines()[0])
    sample["completions"][0] |= {"advantage": math.nan, "text": "\ud83d"}
    with (workdir / "samples.jsonl").open("a") as file:
        file.write(json.dumps(sample) + "\n")
    assert main(["report", str(workdir), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    (question, _) = json.loads(data[1], parse_constant=pytest.fail)["questions"]
    completions = [one for visit in question["visits"] for one in visit["completions"]]
    found = [one for one in completions if one["spans"] == [["", "?"]]]
    assert found[0]["advantage"] is None
    assert "<h1>half ?</h1>" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN"], "needs a place: out (--out FILE.html)"),
        (["RUN", "--out", "page.txt"], "ends in .html"),
        (["NOWHERE", "--out", "page.html"], "has neither config.json nor scores.json"),
        (["RUN", "RUN", "--out", "page.html"], "is named twice; name each folder once"),
        (["RUN", "--out", "NOWHERE/page.html"], "cannot be written"),
    ],
)
def test_bad_input_is_reported_in_one_line(words, message, folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *(str(folders[0]) if w == "RUN" else w for w in words)]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and "Traceback" not in error
    assert not list(tmp_path.iterdir())
