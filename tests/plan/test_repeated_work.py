"""Repeated work and travelling examples, on numbers worked by hand."""

from ssl_jax.plan import repeated_work
from ssl_jax.plan.collectives import Exchange
from ssl_jax.plan.cost_analysis import Product
from ssl_jax.plan.program import Collective


def product(source, flops, count=1):
    return Product(source, "f32[8,4]", "model.py:3", flops, count)


def always(scope):
    del scope
    return True


WHOLE = [product("net/conv1/conv", 8e9), product("net/conv2/conv", 8e9), product("head/dot", 8e6)]


def test_an_even_split_is_no_concern_whatever_the_compiler_calls_it():
    own = [
        product("net/conv1/transpose", 1e9),
        product("other/conv", 1e9),
        product("head/dot", 1e6),
    ]
    assert repeated_work.repeated(own, WHOLE, 8, always) == ()


def test_what_is_not_divided_is_named_with_what_it_costs():
    own = [product("net/conv1/while/conv", 4e9, 2), product("net/conv2/conv", 1e9)]
    (found,) = repeated_work.repeated(own, WHOLE, 8, always)
    assert (found.name, found.shape, found.source) == ("net/conv1/conv", "f32[8,4]", "model.py:3")
    assert found.flops == 8e9 - 1e9


def test_work_done_twice_is_repeated_and_uneven_tiles_are_not():
    twice = [product("net/conv1/conv", 2e9), product("net/conv2/conv", 1e9)]
    uneven = [product("net/conv1/conv", 1.5e9), product("net/conv2/conv", 1e9)]
    assert [found.flops for found in repeated_work.repeated(twice, WHOLE, 8, always)] == [1e9]
    assert repeated_work.repeated(uneven, WHOLE, 8, always) == ()


def test_work_is_repeated_also_where_the_compiler_left_out_as_much():
    own = [product("net/conv1/conv", 2e9), product("head/dot", 1e6)]
    assert [found.flops for found in repeated_work.repeated(own, WHOLE, 8, always)] == [1e9]


def test_small_work_and_work_that_does_not_grow_may_be_repeated():
    small = [product("net/conv1/conv", 1e9), product("net/conv2/conv", 1e9), product("x/dot", 1e6)]
    assert repeated_work.repeated(small, WHOLE, 8, always) == ()
    whole = [*small, product("y/dot", 5e9)]  # of the parameters, not of the batch
    assert repeated_work.repeated(whole, WHOLE, 8, lambda scope: scope != "y") == ()


def exchange(kind, size, group=8, axis="data", by_hand=False):
    fact = Collective(kind, size, 3, group, axis, "ici", "net/concatenate")
    return Exchange(fact, (f"u8[{size}]",), "model.py:3", by_hand)


def test_examples_that_travel_are_named_with_their_bytes():
    # One device's outputs have 100 bytes: eight devices' are 800.
    (found,) = repeated_work.exchanged(
        [exchange("all-to-all", 101), exchange("all-gather", 800)], 100
    )
    assert (found.name, found.shape) == ("all-to-all of net/concatenate", "u8[101]")
    assert (found.bytes, found.flops, found.source) == (3 * 101, 0, "model.py:3")
    assert len(repeated_work.exchanged([exchange("all-gather", 808)], 100)) == 1


def test_sums_parameters_and_what_is_asked_for_may_travel():
    allowed = [
        exchange("all-reduce", 10**9),
        exchange("reduce-scatter", 10**9),
        exchange("all-gather", 10**9, axis="fsdp"),
        exchange("collective-permute", 10**9, by_hand=True),
    ]
    assert repeated_work.exchanged(allowed, 100) == ()
