import numpy as np
import pytest
from feature_sets import feature_set

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import results


@pytest.mark.parametrize("split", [1, 3])
def test_missing_labels_are_counted(split):
    arrays = list(feature_set())
    arrays[split] = np.where(np.arange(200) < 7, -1, arrays[split])
    with pytest.raises(Fault, match="7 of the 200") as fault:
        results.check_sets({"simclr": tuple(arrays)})
    assert fault.value.code == BAD_DATA


def test_a_single_class_is_refused():
    train_x, train_y, test_x, test_y = feature_set()
    with pytest.raises(Fault, match=r"only class \[0\]") as fault:
        results.check_sets({"simclr": (train_x, 0 * train_y, test_x, test_y)})
    assert fault.value.code == BAD_DATA
