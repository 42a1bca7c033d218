import os

import gguf
import numpy as np
import pytest
from transformers import LlamaConfig, Qwen2Config

from sari_jax import assets
from sari_jax.assemble.smollm2 import LAYER, read_smollm2, unpermute
from sari_jax.errors import InputError

TOKENS = ["<|im_end|>", "a", "b", "ab"]


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp does to query and key maps when it makes a GGUF file."""
    rows, columns = weight.shape
    return (
        weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def drawn(config: LlamaConfig) -> dict[str, np.ndarray]:
    """A Llama's tensors as transformers names them."""
    width, ffn = config.hidden_size, config.intermediate_size
    kv = width // config.num_attention_heads * config.num_key_value_heads
    shapes = {"model.embed_tokens": (config.vocab_size, width), "model.norm": (width,)}
    sizes = dict.fromkeys(LAYER.values(), (width, width))
    sizes |= {f"self_attn.{part}_proj": (kv, width) for part in "kv"}
    sizes |= {"mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width)}
    sizes |= {"mlp.down_proj": (width, ffn)}
    sizes |= {name: (width,) for name in sizes if name.endswith("layernorm")}
    for layer in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in sizes.items()}
    rng = np.random.default_rng(0)
    return {
        f"{name}.weight": (0.3 * rng.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_gguf(path, config: LlamaConfig, state: dict[str, np.ndarray]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] + 3 * [gguf.TokenType.NORMAL])
    writer.add_token_merges(["a b"])
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in LAYER.items():
            array = state[f"model.layers.{layer}.{ours}.weight"]
            array = permute(array, heads[theirs]) if theirs in heads else array
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def llama(tmp_path):
    config = LlamaConfig(
        vocab_size=4, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 777.0},
        max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    state = drawn(config)
    write_gguf(tmp_path / "llama.gguf", config, state)
    return config, state, tmp_path / "llama.gguf"


@pytest.mark.usefixtures("theirs")
def test_llama_becomes_qwen2_without_loss(llama):
    import torch
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    def filled(model, state):
        state = {name: torch.tensor(array) for name, array in state.items()}
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state, strict=True)
        return model.eval()

    llama_config, state, path = llama
    read = read_smollm2(path)
    config = Qwen2Config(**read.text_config, vocab_size=4, tie_word_embeddings=True)
    assert config.rope_parameters["rope_theta"] == 777.0
    found = {name.removeprefix("language_model."): a for name, a in read.tensors.items()}
    qwen2 = filled(Qwen2ForCausalLM(config), found)
    model = filled(LlamaForCausalLM(llama_config), state)
    tokens = torch.tensor([[0, 1, 2, 3, 3, 1, 2, 0]])
    with torch.no_grad():
        torch.testing.assert_close(qwen2(tokens).logits, model(tokens).logits, atol=1e-6, rtol=1e-6)


def test_vocabulary(llama):
    read = read_smollm2(llama[-1])
    assert read.vocabulary == {token: i for i, token in enumerate(TOKENS)}
    assert read.merges == [("a", "b")] and read.special == ["<|im_end|>"]
    assert read.text_config["rms_norm_eps"] == 1e-5


def test_unpermute():
    weight = np.arange(24.0).reshape(8, 3)
    np.testing.assert_array_equal(unpermute(permute(weight, 2), 2), weight)
    np.testing.assert_array_equal(unpermute(weight, 2)[:, 0], weight[[0, 2, 1, 3, 4, 6, 5, 7], 0])


def test_refuses_other_files(tmp_path):
    (tmp_path / "text.gguf").write_text("This is no model at all." * 10)
    with pytest.raises(InputError, match="not GGUF"):
        read_smollm2(tmp_path / "text.gguf")


@pytest.mark.numerics
def test_speaks_english_through_qwen2_audio(tmp_path, recorded):
    from transformers import AutoProcessor

    from sari_jax.assemble import assemble
    from sari_jax.data.processor import Shapes
    from sari_jax.generate.engine import Engine

    asset = assets.ASSETS["smollm2-135m"]
    cached = (assets.cache() / f"smollm2-135m-{asset.sha256[:12]}").is_dir()
    if not cached and os.environ.get("SARI_TEST_SMOL") != "1":
        pytest.skip(
            "smollm2-135m is not cached: python -m sari_jax.assets smollm2-135m, or SARI_TEST_SMOL=1"
        )
    assemble("smol", tmp_path / "smol")
    processor = AutoProcessor.from_pretrained(tmp_path / "smol")
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert prompt.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nWhat"
    )

    def find(theirs):
        model = theirs.read(tmp_path / "smol", "qwen2_audio", "auto")
        tokens = processor.tokenizer(prompt, return_tensors="pt")
        made = model.generate(**tokens, max_new_tokens=16, do_sample=False)
        return {"tokens": made[0, tokens["input_ids"].shape[1] :]}

    engine = Engine(tmp_path / "smol")
    text = engine.processor.prompt_text("What is the capital of France?", 0)
    assert text == prompt
    shapes = Shapes(prompt_tokens=(48,), audio_seconds=(1.0,))
    (answer,) = engine.answer(
        [engine.processor.encode(text, [])], engine.sampler(1, 16, 0.0), shapes, rows=1
    )
    assert "Paris" in answer.texts[0] and answer.done == [True]
    for ours, wanted in recorded({"tokens": np.array(answer.token_ids[0])}, find):
        assert ours["tokens"].tolist() == wanted["tokens"].tolist()
        said = processor.tokenizer.decode(wanted["tokens"])
        assert said == answer.texts[0] + "<|im_end|>"
