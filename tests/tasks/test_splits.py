"""Rows are shared out by key, near to their shares, whatever order they come in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.splits import TEST, TRAIN, VALIDATION, share_out

SHARES = {"validation_fraction": 0.2, "test_fraction": 0.3}


@settings(max_examples=50, deadline=None)
@given(
    keys=st.lists(st.integers(0, 40), min_size=1, max_size=80),
    seed=st.integers(0, 3),
)
def test_a_key_has_one_split_and_the_order_of_rows_has_no_part(keys, seed):
    rng = np.random.default_rng(seed)
    keys = np.array(keys)
    strata = rng.integers(3, size=41)[keys]
    order = rng.permutation(len(keys))
    split = share_out(keys, strata=strata, at_least_one=False, **SHARES)
    again = share_out(keys[order], strata=strata[order], at_least_one=False, **SHARES)
    np.testing.assert_array_equal(split[order], again)
    assert all(len(set(split[keys == key])) == 1 for key in keys)
    for stratum in set(strata):
        rows = strata == stratum
        largest = np.bincount(keys[rows]).max()
        for name, place in (("test_fraction", TEST), ("validation_fraction", VALIDATION)):
            difference = (split[rows] == place).sum() - SHARES[name] * rows.sum()
            assert abs(difference) <= largest, (name, stratum)


def test_keys_go_to_test_first_and_to_training_last():
    split = share_out(np.arange(10), strata=None, at_least_one=False, **SHARES)
    assert split.tolist() == [TEST] * 3 + [VALIDATION] * 2 + [TRAIN] * 5


@pytest.mark.parametrize("at_least_one", [True, False])
def test_large_keys_leave_a_split_without_any_unless_it_must_have_one(at_least_one):
    keys = np.repeat([7, 8, 9], 100)
    shares = {"validation_fraction": 0.1, "test_fraction": 0.1}
    split = share_out(keys, strata=None, at_least_one=at_least_one, **shares)
    expected = [TEST, VALIDATION, TRAIN] if at_least_one else [TRAIN] * 3
    assert split[::100].tolist() == expected
