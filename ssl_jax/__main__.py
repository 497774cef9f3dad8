"""Self-supervised pre-training in JAX.

    ssl-jax VERB [--flag=value ...]

`ssl-jax VERB` runs `python -m ssl_jax.VERB`, and `python -m ssl_jax` does the same as `ssl-jax`.
`ssl-jax VERB --help` lists the flags of a verb. `ssl-jax --version` prints the version.
"""

import difflib
import runpy
import sys

import ssl_jax
from ssl_jax.errors import USAGE

VERBS = {
    "train": "Pre-train an encoder or resume a run, evaluate it, write a report.",
    "finetune": "Fine-tune a pre-trained encoder on all labels or a few.",
    "evaluate": "Evaluate a run, or weights from elsewhere, by one or more protocols.",
    "export": "Write the weights of a run in formats that other libraries load.",
    "preview": "Draw the random views that a config makes of real images.",
    "plan": "Predict memory, step time and cost on devices that you do not have.",
    "supervise": "Run a command and restart it after preemptions, crashes and hangs.",
    "study": "Train a grid of settings and tabulate the results.",
    "report": "Write figures and report.html of a run, or compare several runs.",
}


def main() -> int:
    """Runs the verb of the command line, or prints the list of verbs.

    Imports only the verb, so that `--help` and a misspelt verb are answered at once.
    """
    if not sys.argv[1:]:
        print(_usage(), file=sys.stderr)
        return USAGE
    verb = sys.argv.pop(1)
    if verb in ("--help", "-h", "help"):
        print(_usage())
        return 0
    if verb == "--version":
        print(f"ssl-jax {ssl_jax.__version__}")
        return 0
    if verb not in VERBS:
        match = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
        hint = f"did you mean {match[0]!r}?" if match else f"choose from: {', '.join(VERBS)}"
        print(f"ssl-jax: unknown verb {verb!r}; {hint} See ssl-jax --help", file=sys.stderr)
        return USAGE
    runpy.run_module(f"ssl_jax.{verb}", run_name="__main__", alter_sys=True)
    return 0


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"    {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
    return f"{__doc__}\nVerbs:\n{verbs}"


if __name__ == "__main__":
    sys.exit(main())
