import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.hf.export import export
from sari_jax.hf.families import FAMILIES
from sari_jax.hf.families.qwen2_audio import QWEN2_AUDIO
from sari_jax.hf.load import load_params
from sari_jax.hf.names import tensor_rules
from sari_jax.hf.shards import SINGLE, weight_map


def loaded(directory, **settings):
    return load_params(directory, read_config(directory), **settings)


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize(
    "kind", ["single", "sharded", "tied", pytest.param("bfloat16", marks=pytest.mark.numerics)]
)
def test_in_and_out_bit_for_bit(kind, kinds, tmp_path):
    """Every file, byte by byte: shards, index, config."""
    source, out = kinds / kind, tmp_path / "out"
    export(loaded(source), read_config(source), source, out)
    assert contents(out) == contents(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def renamed(sizes, config, to):
    """A tiny model's tensors by another of its family's layouts."""
    tensors, hub = tiny.weights(sizes), tiny.names_of(sizes)
    pairs = zip(tensor_rules(config, hub), tensor_rules(config, to), strict=True)
    names = {
        old: new
        for ours, theirs in pairs
        for old, new in zip(ours.names, theirs.names, strict=True)
    }
    names[hub.unembedding] = to.unembedding
    eyes, theirs = (layout.tower.removesuffix("audio_tower") for layout in (hub, to))
    return {
        names[name] if name in names else theirs + name.removeprefix(eyes): array
        for name, array in tensors.items()
    }


# Of equal shapes, so that little is compiled.
FAMILY_SIZES = {
    "qwen2_audio": tiny.Sizes(),
    "qwen2_audio_tied": tiny.Sizes(tied=True),
    "omni": tiny.Sizes(family="qwen2_5_omni"),
    "omni_thinker_tied": tiny.Sizes(family="qwen2_5_omni_thinker", tied=True),
}
LAYOUTS = [
    pytest.param(name, to, id=f"{name}-{to.decoder}")
    for name in ("qwen2_audio_tied", "omni", "omni_thinker_tied")
    for to in FAMILIES[FAMILY_SIZES[name].family].layouts
    if to != tiny.names_of(FAMILY_SIZES[name])
]


@pytest.mark.parametrize(("name", "to"), LAYOUTS)
def test_every_layout_in_and_out(name, to, tmp_path):
    """Those that transformers 5 writes too; with what it computes beside them, which is passed over and kept."""
    sizes, source = FAMILY_SIZES[name], tmp_path / "source"
    tiny.save(tiny.weights(sizes), tmp_path / "hub", sizes)
    config = read_config(tmp_path / "hub")
    computed = {
        f"{to.decoder}.rotary_emb.inv_freq": np.ones(4, np.float32),
        f"{to.decoder}.rotary_emb.original_inv_freq": np.ones(4, np.float32),
        f"{to.decoder}.layers.1.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    if config.encoder.sinusoids:
        computed |= {
            f"{to.tower}.positional_embedding.positional_embedding": np.ones((8, 4), np.float32),
            f"{to.tower}.embed_positions.weight": np.full((8, 4), np.nan, np.float32),
        }
    shutil.copytree(tmp_path / "hub", source)
    tensors = renamed(sizes, config, to)
    assert set(tensors).isdisjoint(
        set(tiny.weights(sizes)) - {"lm_head.weight", "thinker.lm_head.weight"}
    )
    save_file(tensors | computed, source / SINGLE, metadata={"format": "pt"})
    params = load_params(source, config)
    for path, array in tiny.flatten(load_params(tmp_path / "hub", config)).items():
        np.testing.assert_array_equal(tiny.flatten(params)[path], array, err_msg=path)
    export(params, config, source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)
    for strange in (
        f"{to.decoder}.layers.0.mlp.inv_freq",
        f"{to.decoder}.layers.0.mlp.up_proj.scale",
        "inv_freq",
        tiny.names_of(sizes).tower_norm + ".bias",  # by another layout
    ):
        save_file(tensors | {strange: np.ones(4, np.float32)}, source / SINGLE)
        with pytest.raises(InputError, match=rf": 1 unexpected \({re.escape(strange)}\)$"):
            load_params(source, config)


EARLY = ("qwen2_audio-modules", "omni-hub", "omni_whole-state_dict", "omni_thinker_tied-modules")
SAVED = [
    pytest.param(name, form, id=id, marks=() if id in EARLY else pytest.mark.numerics)
    for name in ("qwen2_audio", "qwen2_audio_tied", "omni", "omni_whole", "omni_thinker_tied")
    for form in ("hub", "modules", "state_dict")
    for id in (f"{name}-{form}",)
]


@pytest.mark.parametrize(("name", "form"), SAVED)
def test_what_transformers_saves_in_and_out(name, form, theirs, tmp_path):
    """Its own choice of names, tensors, shards and settings, where the other directories here are of our writing."""
    sizes, source = FAMILY_SIZES[name.removesuffix("_whole")], tmp_path / "source"
    made = tiny.make(tmp_path / "made", sizes)
    network = theirs.read(made.directory, sizes.family, "auto")
    if name == "omni_whole":
        network = theirs.whole_omni(made)
        source.mkdir()
        theirs.torch.save({}, source / "spk_dict.pt")  # voices, which transformers asks for
    kept = dict(network.state_dict())
    if form == "state_dict":
        network.config.save_pretrained(source)
        tensors = kept | dict(network.named_buffers())
        tensors = {key: array.detach().numpy() for key, array in tensors.items()}
        save_file(tensors, source / SINGLE, metadata={"format": "pt"})
    else:
        network.save_pretrained(source, max_shard_size="60KB", save_original_format=form == "hub")
        assert len(list(source.glob("*.safetensors"))) > 2
    if form == "hub" and name != "omni_whole":
        # The thinker keeps the prefix that it has in the whole.
        assert set(weight_map(source)) == set(tiny.shapes(sizes))
    config = read_config(source)
    assert config == made.config
    params = load_params(source, config)
    for path, array in tiny.flatten(made.params).items():
        np.testing.assert_array_equal(tiny.flatten(params)[path], array, err_msg=path)
    export(params, config, source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)
    again = type(network).from_pretrained(tmp_path / "out").state_dict()
    assert again.keys() == kept.keys()
    assert all(again[key].equal(array) for key, array in kept.items())


def test_bfloat16_stays_bfloat16(kinds, tmp_path):
    params = loaded(kinds / "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    wide = loaded(kinds / "bfloat16", dtype="float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype("float32")}
    export(wide, read_config(kinds / "bfloat16"), kinds / "bfloat16", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(kinds / "bfloat16")


@pytest.mark.parametrize("kind", ["single", "sharded", "bfloat16", "tied"])
def test_an_export_opens_in_transformers(kind, kinds, theirs, tmp_path):
    """With what was trained in it, under the names that transformers looks for."""
    config, params = read_config(kinds / kind), loaded(kinds / kind)
    params["projector"]["bias"] = params["projector"]["bias"] + 1
    params["decoder"]["embed"]["embedding"] = params["decoder"]["embed"]["embedding"] * 2
    export(params, config, kinds / kind, tmp_path / "out")
    found = theirs.weights_in(tmp_path / "out", "qwen2_audio")
    for path, array in theirs.by_our_paths(found, config, QWEN2_AUDIO.layouts[0]).items():
        np.testing.assert_array_equal(
            array, np.asarray(tiny.flatten(params)[path], np.float32), err_msg=path
        )
    if kind == "tied":  # the second copy of the head follows the embedding
        np.testing.assert_array_equal(
            found["lm_head.weight"], found["model.language_model.embed_tokens.weight"]
        )


def test_whoever_may_read_the_source_may_read_the_export(copied, tmp_path):
    source = copied / "sharded"
    for path in source.glob("*.safetensors"):
        path.chmod(0o640)
    export(loaded(source), read_config(source), source, tmp_path / "out")
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert shards and {path.stat().st_mode & 0o777 for path in shards} == {0o640}


def test_what_is_not_ours_is_carried_through(copied, tmp_path):
    """Tokenizer, template, folders; pickles and hidden folders are left behind."""
    source = copied / "single"
    for name in ("tokenizer.json", "chat_template.json", "chat_template.jinja"):
        (source / name).write_text("{}")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("x")
    (source / "optimizer.pt").write_bytes(b"x")
    (source / "folder" / "deeper").mkdir(parents=True)
    (source / "folder" / "deeper" / "voice.json").write_text("{}")
    (source / ".cache").mkdir()
    (source / ".cache" / "download.json").write_text("{}")
    export(loaded(source), read_config(source), source, tmp_path / "out")
    names, before = (
        {str(path.relative_to(root)) for path in root.rglob("*")}
        for root in (tmp_path / "out", source)
    )
    assert before - names == {"optimizer.pt", ".cache", ".cache/download.json"} and names < before


def test_a_link_to_nothing_is_not_passed_over(copied, tmp_path):
    source = copied / "single"
    (source / "vocab.json").symlink_to(source / "gone")
    with pytest.raises(InputError, match="vocab.json: a link to nothing"):
        export(loaded(source), read_config(source), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_what_is_not_finite_is_not_exported(value, kinds, tmp_path):
    """Our own loader would refuse it. The last is finite, in a dtype that the source does not have."""
    source = kinds / "single"
    params = loaded(source)
    bias = np.asarray(params["projector"]["bias"], np.float64)
    params["projector"]["bias"] = np.where(np.arange(len(bias)) == 3, value, bias)
    with pytest.raises(
        InputError, match="linear.bias is not finite in F32.*export an earlier --step"
    ):
        export(params, read_config(source), source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_another_shape(kinds, tmp_path):
    source = kinds / "single"
    params = loaded(source)
    params["projector"]["bias"] = params["projector"]["bias"][:-1]
    with pytest.raises(InputError, match=r"linear.bias was trained with shape \(31,\); .* \(32,\)"):
        export(params, read_config(source), source, tmp_path / "out")


def test_a_directory_with_something_in_it_is_left_alone(kinds, tmp_path):
    (tmp_path / "note").write_text("mine")
    for out in (tmp_path, tmp_path / "note"):
        with pytest.raises(
            InputError, match="exists and is not empty; name a new directory with --out"
        ):
            export(loaded(kinds / "single"), read_config(kinds / "single"), kinds / "single", out)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_what_was_not_trained_is_copied(kinds, tmp_path):
    """Bit for bit, without having been loaded, even where parameters are kept in fewer bits than the source."""
    source = kinds / "single"
    trained = {"projector": {"bias": loaded(source)["projector"]["bias"] + 1}}
    export(trained, read_config(source), source, tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (source, tmp_path / "out"))
    changed = "multi_modal_projector.linear.bias"
    np.testing.assert_array_equal(after[changed], before[changed] + 1)
    assert all(np.array_equal(after[name], before[name]) for name in before if name != changed)


@pytest.fixture(scope="module", params=["omni", "omni_thinker_tied"])
def omni(request, tmp_path_factory):
    sizes = FAMILY_SIZES[request.param]
    return tiny.make(tmp_path_factory.mktemp("models") / request.param, sizes)


def test_omni_in_and_out(omni, tmp_path):
    """The eyes, the voice and their files too, though one of their tensors is not finite and one file is a pickle."""
    export(omni.params, omni.config, omni.directory, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(omni.directory)
    tensors = weight_map(tmp_path / "out")
    assert any("visual." in name for name in tensors)
    assert ("talker.codec_head.weight" in tensors) == (omni.sizes.family == "qwen2_5_omni")


def test_trained_omni_opens_in_transformers(omni, theirs, tmp_path):
    params = jax.tree.map(lambda x: x, omni.params)
    params["decoder"]["embed"]["embedding"] = params["decoder"]["embed"]["embedding"] * 2
    params["projector"]["kernel"] = params["projector"]["kernel"] + 1
    export(params, omni.config, omni.directory, tmp_path / "out")
    found = theirs.weights_in(tmp_path / "out", omni.sizes.family)
    names = tiny.names_of(omni.sizes)
    for path, array in theirs.by_our_paths(found, omni.config, names).items():
        np.testing.assert_array_equal(array, tiny.flatten(params)[path], err_msg=path)


def test_a_link_out_of_the_directory_is_not_copied(copied, tmp_path):
    source = copied / "single"
    (tmp_path / "secret").write_text("mine")
    (source / "vocab.json").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="vocab.json: a symbolic link out of the directory"):
        export(loaded(source), read_config(source), source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
