"""The lines at the start of a run: what runs, how long it compiles, where it resumes."""

import types

import pytest

from configs.simclr import get_config
from ssl_jax.errors import count
from ssl_jax.training import log


def parts(steps, size=1297, classes=10, devices=2):
    return types.SimpleNamespace(
        source=types.SimpleNamespace(name="digits", size=size, classes=("x",) * classes),
        input=types.SimpleNamespace(noun="image"),
        mesh=types.SimpleNamespace(size=devices),
        total_steps=steps,
    )


def test_one_line_says_what_will_run():
    # 365 * 128 / 1297 = 36.02 epochs
    assert log.start_line(get_config("digits"), parts(365)) == (
        "simclr with resnet8 on 1,297 images of 10 classes (digits, 12 px): batch 128 on 2 "
        "devices, 365 steps = 36 epochs"
    )
    config = get_config("digits")
    del config.augment.size  # another modality
    assert log.start_line(config, parts(1, size=256, classes=0, devices=1)) == (
        "simclr with resnet8 on 256 images (digits): batch 128 on 1 device, 1 step = 0.5 epochs"
    )


@pytest.mark.parametrize(
    ("start", "total", "texts"),
    [
        (4, 6, ["resumed at step 4 of 6"]),
        (6, 6, ["resumed at step 6 of 6"]),
        (20, 10, ["has already done 20 steps", "asks for only 10", "trains no further", "step 20"]),
    ],
)
def test_a_resumed_run_says_what_it_does(start, total, texts):
    assert all(text in log.resume_line(start, total) for text in texts)


def test_only_the_first_step_is_announced(capsys):
    step = log.announced(lambda state, batch: (state + batch, {}))
    assert [step(1, 2), step(3, 4)] == [(3, {}), (7, {})]
    first, second = capsys.readouterr().out.splitlines()
    assert first == "compiling the training step …"
    assert second.startswith("compiled in 0.")


def test_numbers_have_their_nouns():
    assert [count(n, "step") for n in (0, 1, 1200)] == ["0 steps", "1 step", "1,200 steps"]
    assert [count(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
