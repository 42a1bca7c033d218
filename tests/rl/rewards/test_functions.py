import functools

import pytest

from sari_jax.errors import InputError
from sari_jax.rl.rewards.functions import check_functions, functions_digest


def brevity(completion, record, style) -> float:
    return 1.0 - completion.num_tokens / completion.limit


def test_the_digest_is_of_names_and_source():
    def shorter(completion, record, style) -> float:
        return 1.0

    digests = {
        functions_digest(given)
        for given in ({"a": brevity}, {"b": brevity}, {"a": shorter}, {"a": brevity, "b": shorter})
    }
    assert len(digests) == 4
    both = {"b": shorter, "a": brevity}
    assert functions_digest(both) == functions_digest(dict(reversed(both.items())))


@pytest.mark.parametrize(
    "function", [lambda completion, record, style: 1.0, len, functools.partial(brevity)]
)
def test_a_function_without_source_is_refused(function):
    with pytest.raises(InputError, match="rewards: 'a' has no source to record .* define it with"):
        functions_digest({"a": function})


def test_functions_and_settings_have_the_same_names():
    check_functions({"brevity": brevity}, ("brevity",), taken=("accuracy",))
    with pytest.raises(InputError, match=r"sari.train as rewards=\{'brevity': function\}"):
        check_functions({}, ("brevity",), taken=())
    with pytest.raises(InputError, match="'brevity' is not among grpo.reward_functions"):
        check_functions({"brevity": brevity}, (), taken=())
    with pytest.raises(InputError, match="'accuracy' is built in"):
        check_functions({"accuracy": brevity}, ("accuracy",), taken=("accuracy",))


@pytest.mark.parametrize("function", [len, functools.partial(brevity, style=1, record=2)])
def test_a_function_of_other_arguments_is_refused(function):
    with pytest.raises(InputError, match=r"function brevity\(completion, record, style\)"):
        check_functions({"brevity": function}, ("brevity",), taken=())
