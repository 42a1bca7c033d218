import pytest

from sari_jax.errors import InputError
from sari_jax.scale.topology import GIB, topology

pytest.importorskip("libtpu", reason="the TPU compiler comes with jax[tpu]")


def test_a_slice_without_its_chips():
    found = topology("v5e:2x2")
    assert (found.kind, found.chips, found.memory) == ("v5e", 4, 16 * GIB)
    assert found.usable < found.memory
    assert {device.platform for device in found.devices} == {"tpu"}


@pytest.mark.parametrize("name", ["v6e:1x1", "v5e:1x1"])
def test_a_single_chip(name):
    assert topology(name).chips == 1


def test_two_slices():
    found = topology("v5e:2x2", 2)
    assert found.chips == 8 and {device.slice_index for device in found.devices} == {0, 1}


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "v5e:2", "v5e:2xtwo", "h100:8x8"])
def test_an_unknown_name(name):
    with pytest.raises(InputError, match="is not one of v5e, v6e, v5p with a shape"):
        topology(name)


def test_a_shape_that_the_kind_does_not_come_in():
    with pytest.raises(InputError, match="topology v5e:3x5: the TPU compiler does not know it"):
        topology("v5e:3x5")
