"""Nothing in the data path may draw from a hidden state, and the specification stays light."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILES = [p for folder in ("inputs", "data") for p in (ROOT / "ssl_jax" / folder).rglob("*.py")]
BANNED = re.compile(
    r"tf\.image\.random_|tf\.random\.(?:uniform|normal|shuffle|set_seed|truncated_normal|Generator)"
    r"|(?:np|numpy)\.random(?!\.default_rng\((?!\))|\.Generator,)|^\s*(?:import|from) random\b",
    re.MULTILINE,
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_stateful_randomness(path):
    assert not (found := BANNED.findall(path.read_text())), found


@pytest.mark.parametrize(
    "code",
    [
        *("tf.image.random_flip(x)", "import random", "np.random.rand()"),
        "np.random.default_rng()",
    ],
)
def test_the_ban_bites(code):
    assert BANNED.search(code)


def test_import_loads_neither_tensorflow_nor_jax_early():
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
