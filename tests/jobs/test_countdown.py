"""A long loop tells how much is done and the time left; a short loop prints nothing."""

from ssl_jax.jobs.countdown import track


def clock_of(*times):
    values = iter(times)
    return lambda: next(values)


def test_time_left_follows_from_the_items_that_are_done(capsys):
    # Started at 0 s; items begin at 1, 5, 12, 15 and 24 s.
    items = track("abcde", 5, "features: {} batches", clock=clock_of(0, 1, 5, 12, 15, 24))
    assert list(items) == list("abcde")
    # After 12 s, 2 of 5 items are done: 3 * 12 / 2 = 18 s are left. After 24 s, 4 are: 6 s.
    assert capsys.readouterr().out.splitlines() == [
        "features: 2 of 5 batches, 0:00:18 left",
        "features: 4 of 5 batches, 0:00:06 left",
    ]


def test_short_loops_and_other_processes_print_nothing(capsys):
    assert list(track("abc", 3, "{}", clock=clock_of(0, 1, 2, 3))) == list("abc")
    assert list(track("abc", 3, "{}", show=False, clock=clock_of(0, 50, 100, 150))) == list("abc")
    assert capsys.readouterr().out == ""
