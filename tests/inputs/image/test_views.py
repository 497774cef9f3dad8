"""Splitting views into full-size and local views."""

import pytest

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs.image.views import View, split

FULL, OTHER, LOCAL = View(size=8), View(size=8, blur=1), View(size=5)


@pytest.mark.parametrize("full", [(FULL,), (FULL, OTHER), (FULL, OTHER, FULL)])
@pytest.mark.parametrize("local", [(), (LOCAL,), (LOCAL, LOCAL._replace(flip=0))])
def test_views_are_split_by_size(full, local):
    assert split([*full, *local]) == (full, local)


@pytest.mark.parametrize("sizes", [(8, 5, 3), (8, 8, 5, 8), (5, 8, 5)])
def test_views_of_three_sizes_or_mixed_order_are_refused(sizes):
    with pytest.raises(Fault, match=str(list(sizes)).strip("[]")) as caught:
        split([View(size=size) for size in sizes])
    assert caught.value.code == BAD_CONFIG
