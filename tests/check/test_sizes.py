"""The sizes at which the contract is held."""

from macformer.check.suite import conftest, test_mixer_contract


def test_no_two_axes_of_a_tensor_are_of_one_size():
    sizes = [getattr(conftest, name) for name in ("B", "H", "L", "S", "E", "EV", "MAX_SEQ_LEN")]
    assert len(set(sizes)) == len(sizes)
    lengths = [test_mixer_contract.N, test_mixer_contract.MAX_SEQ_LEN]
    assert test_mixer_contract.D not in [conftest.B, *lengths]


def test_sizes_are_such_as_sound_variants_may_need():
    """Rotations take entries in pairs, and heads share the width of a mixer."""
    assert conftest.E % 2 == 0
    assert all(test_mixer_contract.D % num_heads == 0 for num_heads in (2, 3, 4, 8))
