"""Page of a plan in a browser: no missing picture, no error, nothing cut off."""

import browser
import pytest
from test_reports import make_plan, too_large

from ssl_jax.plan import html_report

pytestmark = [pytest.mark.slow, browser.needs_browser]


@pytest.mark.parametrize("program", [None, too_large()], ids=["fits", "too large"])
def test_a_plan_is_complete_at_every_width(program, tmp_path):
    path = tmp_path / "plan.html"
    path.write_text(html_report.plan_page(make_plan(program)))
    assert browser.problems(path, tmp_path) == []
