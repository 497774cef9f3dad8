"""Writes figures and report.html of a run, or the comparison of several, from their files alone.

python -m ssl_jax.report --workdir=runs/NAME
python -m ssl_jax.report --workdirs=runs/A,runs/B,runs/C --out=compare.html
"""

from absl import flags

from ssl_jax import cli
from ssl_jax.errors import USAGE, Fault
from ssl_jax.report import compare, page

flags.DEFINE_string("workdir", None, "Folder of the run to report on.")
flags.DEFINE_list("workdirs", None, "Folders of two or more runs to compare.")
flags.DEFINE_string("out", None, "Page of the comparison to write; compare.html by default.")


def main() -> None:
    """The verb: see the module's docstring."""
    one, several, out = (flags.FLAGS[name].value for name in ("workdir", "workdirs", "out"))
    if bool(one) == bool(several):
        raise Fault("give --workdir=RUN for one run, or --workdirs=RUN,RUN to compare", USAGE)
    if one and out:
        raise Fault("--out is of a comparison; --workdir writes report.html into the run", USAGE)
    print(compare.write(several, out or "compare.html") if several else page.write(str(one)))


if __name__ == "__main__":
    cli.run(main)
