import pytest

from sari_jax.errors import InputError
from sari_jax.rl.rewards.file import digest, load_rewards

BREVITY = """
LIMIT = 10

def brevity(completion, record, style) -> float:
    return 1.0 - len(completion) / LIMIT

def too_few(completion):
    return 0.0

number = 3
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "my_rewards.py"
    file.write_text(BREVITY)
    return file


def test_a_function_of_the_file(path):
    rewards = load_rewards(str(path), ["brevity"])
    assert list(rewards) == ["brevity"] and rewards["brevity"]("abcde", None, None) == 0.5


@pytest.mark.parametrize("name", ["absent", "number", "too_few"])
def test_what_is_no_such_function(path, name):
    wanted = (
        rf"my_rewards.py: has no function {name}\(completion, record, style\), which grpo.rewards"
    )
    with pytest.raises(InputError, match=wanted):
        load_rewards(str(path), ["brevity", name])


@pytest.mark.parametrize(
    ("text", "told"),
    [("def f(:", "SyntaxError"), ("import nothing_of_that_name", "ModuleNotFoundError"), ("1 / 0", "division by zero")],
)  # fmt: skip
def test_a_file_that_fails_says_so_in_one_line(path, text, told):
    path.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        load_rewards(str(path), ["brevity"])
    assert len(str(caught.value).splitlines()) == 1 and "my_rewards.py" in str(caught.value)


def test_no_such_file(path):
    for read in (digest, lambda path: load_rewards(path, [])):
        with pytest.raises(InputError, match=r"absent\.py: no such file"):
            read(str(path.with_name("absent.py")))


def test_a_digest_follows_the_content(path):
    before = digest(str(path))
    assert digest(str(path)) == before
    path.write_text(BREVITY.replace("LIMIT = 10", "LIMIT = 20"))
    assert digest(str(path)) != before


def test_a_name_that_is_taken(path):
    path.write_text(BREVITY + "\ndef accuracy(completion, record, style):\n    return 1.0\n")
    assert load_rewards(str(path), ["brevity"])
    with pytest.raises(
        InputError, match="defines accuracy, which is a built-in reward; give it another name"
    ):
        load_rewards(str(path), ["brevity"], taken=("format", "accuracy"))
