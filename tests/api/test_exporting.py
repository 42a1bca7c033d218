import pytest

import sari_jax as sari
from sari_jax.errors import InputError


def test_only_a_run_is_exported(tmp_path):
    with pytest.raises(InputError, match="no config.json; name the --workdir of a run"):
        sari.export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
