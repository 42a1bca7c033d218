from sari_jax.data.styles import STYLES
from sari_jax.rl.rewards.completion import Completion


def test_a_string_that_knows_its_length_in_tokens():
    completion = Completion("<answer>dog</answer>", 7, 48)
    assert completion == "<answer>dog</answer>" and len(completion) == 20
    assert (completion.num_tokens, completion.limit) == (7, 48)
    assert STYLES["direct"].answer(completion) == "dog"
