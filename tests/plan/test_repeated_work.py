"""Repeated work and exchanged examples, on numbers worked by hand."""

from ssl_jax.plan.collectives import HloCollective
from ssl_jax.plan.cost_analysis import Product
from ssl_jax.plan.program import Collective
from ssl_jax.plan.repeated_work import find_exchanged_examples, find_repeated_work


def product(source, flops, count=1):
    return Product(source, "f32[8,4]", "model.py:3", flops, count)


def always_grows(scope):
    del scope
    return True


WHOLE = [product("net/conv1/conv", 8e9), product("net/conv2/conv", 8e9), product("head/dot", 8e6)]


def test_even_share_is_accepted_under_any_name():
    own = [
        product("net/conv1/transpose", 1e9),
        product("other/conv", 1e9),
        product("head/dot", 1e6),
    ]
    assert find_repeated_work(own, WHOLE, 8, always_grows) == ()


def test_work_that_lost_its_name_is_accepted_at_an_even_share():
    """XLA's CPU backend drops the names of some convolutions; scope "" is that of "conv", too."""
    whole = [product("net/conv1/conv", 8e9), product("conv", 8e6)]
    own = [product("", 1e9), product("conv", 1e6)]
    assert find_repeated_work(own, whole, 8, always_grows) == ()
    (work,) = find_repeated_work([*own, product("", 1e9)], whole, 8, always_grows)
    assert (work.name, work.flops) == ("", 2e9 + 1e6 - 1e6)


def test_undivided_work_is_reported_with_name_and_flops():
    own = [product("net/conv1/while/conv", 4e9, 2), product("net/conv2/conv", 1e9)]
    (work,) = find_repeated_work(own, WHOLE, 8, always_grows)
    assert (work.name, work.shape, work.source) == ("net/conv1/conv", "f32[8,4]", "model.py:3")
    assert work.flops == 8e9 - 1e9


def test_double_work_is_reported_and_uneven_tiles_are_not():
    twice = [product("net/conv1/conv", 2e9), product("net/conv2/conv", 1e9)]
    uneven = [product("net/conv1/conv", 1.5e9), product("net/conv2/conv", 1e9)]
    (work,) = find_repeated_work(twice, WHOLE, 8, always_grows)
    assert work.flops == 1e9
    assert find_repeated_work(uneven, WHOLE, 8, always_grows) == ()


def test_repeated_work_is_reported_even_if_the_compiler_saved_as_much_elsewhere():
    own = [product("net/conv1/conv", 2e9), product("head/dot", 1e6)]
    (work,) = find_repeated_work(own, WHOLE, 8, always_grows)
    assert work.flops == 1e9


def test_small_work_and_work_independent_of_the_batch_may_be_repeated():
    small = [product("net/conv1/conv", 1e9), product("net/conv2/conv", 1e9), product("x/dot", 1e6)]
    assert find_repeated_work(small, WHOLE, 8, always_grows) == ()
    whole = [*small, product("y/dot", 5e9)]  # work on parameters, not on the batch
    assert find_repeated_work(whole, WHOLE, 8, lambda scope: scope != "y") == ()


def exchange(kind, size, group=8, axis="data", requested=False):
    collective = Collective(kind, size, 3, group, axis, "ici", "net/concatenate")
    return HloCollective(collective, (f"u8[{size}]",), "model.py:3", requested)


def test_exchanged_examples_are_reported_with_name_and_bytes():
    # One device's outputs have 100 bytes, so those of eight devices have 800.
    (work,) = find_exchanged_examples(
        [exchange("all-to-all", 101), exchange("all-gather", 800)], 100
    )
    assert (work.name, work.shape) == ("all-to-all of net/concatenate", "u8[101]")
    assert (work.bytes, work.flops, work.source) == (3 * 101, 0, "model.py:3")
    assert len(find_exchanged_examples([exchange("all-gather", 808)], 100)) == 1


def test_sums_parameters_and_requested_exchanges_are_allowed():
    allowed = [
        exchange("all-reduce", 10**9),
        exchange("reduce-scatter", 10**9),
        exchange("all-gather", 10**9, axis="fsdp"),
        exchange("collective-permute", 10**9, requested=True),
    ]
    assert find_exchanged_examples(allowed, 100) == ()
