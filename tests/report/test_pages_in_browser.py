"""Report and comparison in a browser: no missing picture, no error, nothing cut off."""

import json
import shutil

import browser
import pytest
from written_run import HOSTILE, change_config, write_run

from ssl_jax.report import compare, page
from ssl_jax.report.figures import image_grids

pytestmark = [pytest.mark.slow, browser.needs_browser]


def test_a_broken_page_is_noticed(tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        '<main><img alt="gone" src="gone.png"><div style="width: 700px">wide</div>'
        '<div style="width: 50px; overflow: hidden">averyveryverylongword</div></main>'
        "<script>throw new Error('bang')</script>"
    )
    found = " | ".join(browser.problems(broken, tmp_path))
    for words in ("image gone is missing", "page is", "hides a part", "bang"):
        assert words in found, found


def test_a_report_is_complete_at_every_width(finished_run, tmp_path):
    change_config(finished_run, method={"name": HOSTILE[4], "long": "x" * 200})
    (finished_run / "figures").mkdir()
    grid = page.np.zeros((2, 10, 8, 8, 3))
    image_grids.draw_grid(grid, finished_run / "figures" / "samples.png")
    texts = {"samples": {"title": "Generated images", "caption": "x" * 300}}
    (finished_run / "figures" / "pictures.json").write_text(json.dumps(texts))
    assert browser.problems(page.write(finished_run), tmp_path) == []


def test_a_comparison_is_complete_at_every_width(tmp_path):
    runs = [write_run(tmp_path / f"run{i}") for i in range(3)]
    change_config(runs[1], train={"seed": 8})
    change_config(runs[2], train={"batch_size": 64}, optim={"name": "x" * 100})
    out = compare.write([str(run) for run in runs], tmp_path / "compare.html")
    assert browser.problems(out, tmp_path) == []


def test_an_empty_run_is_complete_at_every_width(finished_run, tmp_path):
    shutil.rmtree(finished_run / "eval")
    (finished_run / "metrics.jsonl").unlink()
    assert browser.problems(page.write(finished_run), tmp_path) == []
