"""The protocol end to end with a server that is not ours: `transformers serve` on SmolLM2-135M.

So small a model keeps hardly any rule. What is tested is that all of it is accounted for, and paid for once.
"""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from sari_jax import assets
from sari_jax.assemble.directory import SYSTEM, TEMPLATE
from sari_jax.assemble.smollm2 import read_smollm2
from sari_jax.assemble.tokenizer import smollm2_tokenizer, write_tokenizer
from sari_jax.cli import main

NEEDED = ("torch", "fastapi", "uvicorn", "openai", "accelerate")
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(bool(ABSENT), reason=f"transformers serve needs {', '.join(ABSENT)}"),
]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    """SmolLM2 as a Hugging Face directory, in bfloat16 for its size."""
    import torch
    from safetensors.torch import save_file

    asset = assets.ASSETS["smollm2-135m"]
    if not (assets.cache() / f"smollm2-135m-{asset.sha256[:12]}").is_dir():
        pytest.skip("smollm2-135m is not cached: python -m sari_jax.assets smollm2-135m")
    (gguf,) = assets.fetch("smollm2-135m").rglob("*.gguf")
    out = tmp_path_factory.mktemp("smollm2")
    model = read_smollm2(gguf)
    tensors = {
        name.removeprefix("language_model."): torch.from_numpy(array).bfloat16()
        for name, array in model.tensors.items()
    }
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = model.text_config | {
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": len(model.vocabulary),
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "eos_token_id": model.vocabulary["<|im_end|>"],
    }
    (out / "config.json").write_text(json.dumps(config))
    tokenizer = smollm2_tokenizer(model.vocabulary, model.merges, model.special)
    write_tokenizer(tokenizer, out, tokenizer_class="PreTrainedTokenizerFast")
    path = out / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["processor_class"]  # there are no ears
    path.write_text(json.dumps(settings))
    (out / "chat_template.jinja").write_text(TEMPLATE.replace("SYSTEM\n", f"{SYSTEM}\n"))
    return out


@contextlib.contextmanager
def transformers_serve(model: Path, log: Path):
    """Its address; gone afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    words += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *words], env=environment, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_everything_is_accounted_for_and_nothing_asked_twice(language_model, tmp_path, capsys):
    said = ["A dog barks twice and a door closes.", "Rain falls on a roof.", None]
    lines = []
    for i, text in enumerate(said):
        (tmp_path / f"{i}.wav").write_bytes(b"never opened")
        row = {"id": f"clip{i}", "audio": [{"path": f"{i}.wav"}], "task": "sound"}
        lines.append(row | {"source": "made up", "licence": "CC0-1.0", "caption": text})
    captions, log = tmp_path / "captions.jsonl", tmp_path / "server.log"
    captions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cache = tmp_path / "cache"

    def run(out: Path, url: str) -> dict:
        words = ["data", "synthesize", "--captions", captions, "--out", out, "--endpoint", url]
        words += ["--model", language_model, "--cache", cache, "--attempts", "2", "--json"]
        words += ["--max-tokens", "16", "--concurrency", "2"]
        assert main([str(word) for word in words]) == 0
        return json.loads(capsys.readouterr().out)

    with transformers_serve(language_model, log) as url:
        told = run(tmp_path / "out", url)
    sent = told["requests"]["sent"]
    assert told["read"] == 3 and told["kept"] + sum(told["dropped"].values()) == 3
    assert told["dropped"]["no caption and no labels"] == 1 and told["requests"]["failed"] == 0
    assert sent >= 2 and log.read_text().count('POST /v1/chat/completions HTTP/1.1" 200') == sent
    entries = [json.loads(path.read_text()) for path in cache.rglob("*.json")]
    assert len(entries) == sent
    for entry in entries:
        reply = entry["reply"]
        assert reply["text"].strip() and 0 < reply["completion_tokens"] <= 16
        assert reply["prompt_tokens"] > 200
    spent = sum(e["reply"]["prompt_tokens"] + e["reply"]["completion_tokens"] for e in entries)
    assert sum(told["spent"].values()) == spent
    dropped = [
        json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()
    ]
    assert len({row["where"] for row in dropped}) == len(dropped)
    assert all("the model wrote: " in row["detail"] for row in dropped if row["where"] != "clip2")

    again = run(tmp_path / "again", url)  # whose server is gone
    assert again["requests"] == {"sent": 0, "cached": sent, "failed": 0}
    assert again["dropped"] == told["dropped"] and again["kept"] == told["kept"]
