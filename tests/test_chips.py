"""The table of accelerators, and the names of slices."""

import pytest

from jaxgen.errors import UserError
from jaxgen.plan import chips


@pytest.mark.parametrize("chip", chips.CHIPS, ids=lambda chip: chip.name)
def test_units_are_bytes_and_seconds(chip):
    assert 50 < chip.peak / chip.bandwidth < 1000  # FLOP/byte
    assert 16 * 2**30 <= chip.memory <= 192 * 2**30
    assert 2e-3 < chip.memory / chip.bandwidth < 0.1  # seconds to read all of it
    assert 5 < chip.bandwidth / chip.link < 100
    assert chip.sources
    assert all(source.startswith("https://") for source in chip.sources)


@pytest.mark.parametrize(
    ("kind", "chip"),
    [
        ("TPU v2", chips.V2),
        ("TPU v3", chips.V3),
        ("TPU v4", chips.V4),
        ("TPU v5 lite", chips.V5E),
        ("TPU v5", chips.V5P),
        ("TPU v6 lite", chips.V6E),
        ("TPU7x", chips.V7X),
        ("NVIDIA A100-SXM4-40GB", chips.A100_40),
        ("NVIDIA A100-SXM4-80GB", chips.A100_80),
        ("NVIDIA H100 80GB HBM3", chips.H100),
        ("NVIDIA H200", chips.H200),
        ("NVIDIA B200", chips.B200),
        ("NVIDIA L40S", chips.L40S),
        ("NVIDIA L4", chips.L4),
        ("Tesla T4", chips.T4),
        ("Tesla V100-SXM2-16GB", chips.V100_16),
        ("Tesla V100-SXM2-32GB", chips.V100_32),
        ("NVIDIA GeForce GTX 1080", None),
        ("NVIDIA H100 PCIe", None),  # no close match: it is a slower card
        ("TPU v4 lite", None),
        ("cpu", None),
    ],
)
def test_a_kind_finds_its_chip(kind, chip):
    assert chips.of_device_kind(kind) is chip


def test_no_two_chips_share_a_kind():
    kinds = [kind for chip in chips.CHIPS for kind in chip.kinds]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    ("name", "chip", "shape"),
    [
        ("v2:16x16", chips.V2, (16, 16)),
        ("v3:4x4", chips.V3, (4, 4)),
        ("v4:4x4x4", chips.V4, (4, 4, 4)),
        ("v5e:4x4", chips.V5E, (4, 4)),
        ("v5e=4x2", chips.V5E, (4, 2)),
        ("v5p:8x8x8", chips.V5P, (8, 8, 8)),
        ("v5p_2x2x1", chips.V5P, (2, 2, 1)),
        ("v5p:16x20x28", chips.V5P, (16, 20, 28)),
        ("v6e:16x16", chips.V6E, (16, 16)),
        ("tpu7x:2x2x1", chips.V7X, (2, 2, 1)),
        ("cpu:256", None, (256,)),
    ],
)
def test_a_topology_is_a_chip_and_a_shape(name, chip, shape):
    assert chips.topology(name) == (chip, shape)


@pytest.mark.parametrize("generation", chips.GENERATIONS)
def test_every_slice_that_is_listed_exists(generation):
    for shape in chips.GENERATIONS[generation].shapes:
        found, sides = chips.topology(f"{generation}:{shape}")
        assert found is chips.GENERATIONS[generation]
        assert "x".join(map(str, sides)) == shape


@pytest.mark.parametrize("name", ["v5x:4x4", "v5e:4x4x4", "v4:4x4", "v5e", "v5e:", "v5e:4x", "cpu:2x4", "cpu:0", ""])
def test_an_unknown_topology_names_the_known(name):
    with pytest.raises(UserError) as raised:
        chips.topology(name)
    known = "cpu:256, v2:4x4, v3:4x4, v4:4x4x4, v5e:4x4, v5p:4x4x4, v6e:4x4, tpu7x:4x4x4"
    assert str(raised.value) == f"unknown topology {name!r}; known: {known}"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("v5e:3x3", "v5e:1x1, v5e:2x2, v5e:2x4, v5e:4x4, v5e:4x8, v5e:8x8, v5e:8x16, v5e:16x16"),
        ("v5e:0x4", "v5e:1x1, "),
        ("v6e:16x32", "v6e:8x16, v6e:16x16"),
        ("v4:2x8x8", "v4:12x12x24, and others of at most 4096 chips with sides all up to 4 or all multiples of 4"),
        ("v4:16x16x20", "of at most 4096 chips"),
        ("v5p:6x6x6", "v5p:2x2x1, v5p:2x2x2, "),
        ("v5p:20x20x28", "of at most 8960 chips"),
        ("v3:32x64", "v3:AxB of at most 1024 chips"),
        ("tpu7x:16x24x28", "tpu7x:AxBxC of at most 9216 chips"),
    ],
)
def test_a_slice_that_does_not_exist_names_those_that_do(name, known):
    with pytest.raises(UserError) as raised:
        chips.topology(name)
    assert str(raised.value).startswith(f"no slice {name!r}; known: ")
    assert known in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "rings"),
    [
        ("v5e:4x4", (False, False)),
        ("v5e:8x16", (False, True)),
        ("v6e:16x16", (True, True)),
        ("v4:2x4x4", (False, False, False)),
        ("v5p:4x4x8", (True, True, True)),
    ],
)
def test_sides_close_into_rings(name, rings):
    chip, shape = chips.topology(name)
    assert chip.rings(shape) == rings


def test_gpus_close_no_rings():
    assert chips.H100.rings((8,)) == (False,)
