from sari_jax.digests import corpus_digest, files_digest, model_digest


def test_content_and_name_decide_and_not_the_place(tmp_path):
    for folder, name, content in (
        ("a", "x", "1"),
        ("b", "x", "1"),
        ("c", "y", "1"),
        ("d", "x", "2"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content)
    a, b, c, d = (files_digest(sorted((tmp_path / f).iterdir())) for f in "abcd")
    assert a == b and len({a, c, d}) == 3


def test_of_a_model_its_config_and_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = model_digest(tmp_path)
    (tmp_path / "README.md").write_text("new")
    assert model_digest(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert model_digest(tmp_path) != before


def test_of_a_corpus_its_shards_too(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("{}")
    loose = corpus_digest(path)
    assert loose == files_digest([path])
    shard = tmp_path / "clips-00000.arrayrecord"
    shard.write_bytes(b"one")
    packed = corpus_digest(path)
    shard.write_bytes(b"other")
    assert len({loose, packed, corpus_digest(path)}) == 3
