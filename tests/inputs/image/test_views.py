"""Splitting views into full-size and local views."""

import pytest

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs.image.fields import default_fields
from ssl_jax.inputs.image.views import View, split, views_from_fields

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


def test_other_views_have_the_interpolation_and_blur_of_the_first():
    augment = default_fields() | {"interpolation": "bilinear", "blur_kernel": 0.0}
    augment |= {"second": {"blur": 1.0}, "local": {"views": 2, "size": 96}}
    views = views_from_fields(augment)
    assert len(views) == 4
    assert {(view.interpolation, view.blur_kernel) for view in views} == {("bilinear", 0.0)}
