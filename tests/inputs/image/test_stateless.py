"""The data path uses no stateful randomness, and importing the specification is fast."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILES = [p for folder in ("inputs", "data") for p in (ROOT / "ssl_jax" / folder).rglob("*.py")]
# `np.random.Generator` is allowed as an annotation; it draws nothing without a bit generator.
BANNED = re.compile(
    r"tf\.image\.random_|tf\.random\.(?:uniform|normal|shuffle|set_seed|truncated_normal|Generator)"
    r"|(?:np|numpy)\.random(?!\.default_rng\((?!\))|\.Generator\b)|^\s*(?:import|from) random\b",
    re.MULTILINE,
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_stateful_randomness(path):
    calls = BANNED.findall(path.read_text())
    assert not calls, calls


@pytest.mark.parametrize(
    "code",
    [
        *("tf.image.random_flip(x)", "import random", "np.random.rand()"),
        "np.random.default_rng()",
        "np.random.Generator(np.random.PCG64())",
    ],
)
def test_stateful_randomness_is_detected(code):
    assert BANNED.search(code)


def test_imports_load_neither_tensorflow_nor_jax_early():
    code = (
        "import sys, ssl_jax.inputs.image.views, ssl_jax.inputs.image.recipes as r\n"
        "assert not {'tensorflow', 'jax', 'numpy'} & set(sys.modules), 'views'\n"
        "import ssl_jax.inputs.image.host as h\n"
        "h.make(r.RECIPES['byol'], seed=0, placement='host')\n"
        "assert not {'tensorflow', 'jax'} & set(sys.modules), 'host'\n"
        "import ssl_jax.inputs.image.device\n"
        "assert 'tensorflow' not in sys.modules, 'device'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
