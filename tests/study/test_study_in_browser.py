"""Page of a study in a browser: no missing picture, no error, nothing cut off."""

import browser
import pytest

from ssl_jax.study import page

pytestmark = [pytest.mark.slow, browser.needs_browser]


@pytest.mark.parametrize(
    "grid", ["batch=64,256;epochs=4,8;lr_rule=linear,sqrt;seed=0,1", "devices=1,2;steps=5"]
)
def test_a_study_is_complete_at_every_width(study_of, tmp_path, grid):
    study = study_of(grid, noise_scale=lambda cell: 200.0)
    page.write(study)
    assert browser.problems(study.path / "study.html", tmp_path) == []
