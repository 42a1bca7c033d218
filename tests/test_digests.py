from sari_jax.digests import files_digest, model_digest


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
