"""Writes the report of one run, or a comparison of several runs, from their files alone.

ssl-jax report --workdir=runs/NAME
ssl-jax report --workdirs=runs/A,runs/B,runs/C --out=compare.html
"""

from absl import flags

from ssl_jax import cli
from ssl_jax.errors import USAGE, Fault
from ssl_jax.report import compare, page

flags.DEFINE_string("workdir", None, "Workdir of the run to report on.")
flags.DEFINE_list("workdirs", None, "Workdirs of two or more runs to compare.")
flags.DEFINE_string(
    "out", None, "HTML file of the comparison; default: compare.html, in the current folder."
)


def main() -> None:
    """Runs the verb that the module's docstring describes."""
    workdir, workdirs, out = (flags.FLAGS[name].value for name in ("workdir", "workdirs", "out"))
    if bool(workdir) == bool(workdirs):
        raise Fault("give --workdir=RUN for one run, or --workdirs=RUN,RUN to compare runs", USAGE)
    if workdir and out:
        raise Fault(
            "--out works only with --workdirs; --workdir writes report.html into the run's folder",
            USAGE,
        )
    print(compare.write(workdirs, out or "compare.html") if workdirs else page.write(str(workdir)))


if __name__ == "__main__":
    cli.run(main)
