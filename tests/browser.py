"""Opens HTML pages in a headless Chromium and reports what a reader would see broken."""

import html
import json
import pathlib
import shutil
import subprocess

import pytest

WIDTHS = (400, 1200)  # pixels: a phone, and a laptop
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: apt-get install chromium"
)

# The page is in an iframe, because the window of a headless browser may not be narrower than 500
# pixels. An element is cut off if it is wider than its box and the box neither scrolls nor grows.
WRAPPER = """<!doctype html><meta charset="utf-8">
<iframe id="page" width="WIDTH" height="900" srcdoc="PAGE"></iframe><pre id="problems">not run</pre>
<script>
window.addEventListener("load", () => {
  const page = document.getElementById("page").contentDocument, root = page.documentElement;
  const problems = [];
  if (root.scrollWidth > root.clientWidth) problems.push(`page is ${root.scrollWidth} px wide`);
  for (const image of page.images)
    if (!image.complete || !image.naturalWidth) problems.push(`image ${image.alt} is missing`);
  const scrolls = element => element && element !== page.body && (
    ["auto", "scroll"].includes(page.defaultView.getComputedStyle(element).overflowX)
    || scrolls(element.parentElement));
  for (const element of page.querySelectorAll("main *")) {
    const box = element.getBoundingClientRect();
    if (box.right > root.clientWidth + 1 && !scrolls(element))
      problems.push(`${element.tagName} ${element.className} ends at ${box.right} px`);
    const style = page.defaultView.getComputedStyle(element);
    if (element.scrollWidth > element.clientWidth + 1 && style.overflowX === "hidden")
      problems.push(`${element.tagName} ${element.className} hides a part of its content`);
  }
  document.getElementById("problems").textContent = JSON.stringify(problems);
});
</script>
"""


def problems(page: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Opens a page at each width.

    Args:
      page: the HTML file.
      folder: folder for temporary files.

    Returns:
      Missing images, console messages, and content that is cut off or outside the window.
    """
    found = []
    for width in WIDTHS:
        text = WRAPPER.replace("WIDTH", str(width))
        wrapper = folder / f"browser_{width}.html"
        wrapper.write_text(text.replace("PAGE", html.escape(page.read_text())))
        done = subprocess.run(
            [
                str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                f"--user-data-dir={folder / 'browser'}", "--enable-logging=stderr",
                "--virtual-time-budget=10000", "--window-size=1300,1000", wrapper.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        result = done.stdout.partition('<pre id="problems">')[2].partition("</pre>")[0]
        assert result.startswith("["), done.stdout[-500:]
        found += [f"{width} px: {line}" for line in [*json.loads(html.unescape(result)), *console]]
    return found
