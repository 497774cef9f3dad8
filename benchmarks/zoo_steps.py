"""Accuracy against the number of training steps, for a few methods of the zoo.

    python -m benchmarks.zoo_steps --data_dir=DATA_DIR --figure=docs/images/zoo_steps.png

Every point is a whole run of its own, whose learning rate falls to 0 at its last step. Runs of the
zoo with the same workdir, number of steps and seed are used again. Prints a Markdown table and
draws a figure with one line per method.
"""

import matplotlib
from absl import app, flags
from matplotlib.figure import Figure

from benchmarks import zoo
from ssl_jax.report.display_names import METHOD_NAMES
from ssl_jax.report.figures import style

FLAGS = flags.FLAGS
METHODS = ["simclr", "moco_v3", "barlow_twins", "byol", "simsiam", "mae"]


def main(argv: list[str]) -> None:
    """Runs the benchmark; see the module's docstring."""
    del argv
    lengths = [int(steps) for steps in FLAGS.lengths]
    zoo.train([zoo.Run(name, steps, FLAGS.seed) for steps in lengths for name in FLAGS.methods])
    points = {name: _points(name, lengths) for name in FLAGS.methods}
    print(_table(points, lengths))
    style.save(_figure(points, lengths), FLAGS.figure)


Points = dict[str, dict[int, float]]  # {evaluation: {steps: accuracy}}


def _points(name: str, lengths: list[int]) -> Points:
    """Returns the accuracies of a method's completed runs in per cent."""
    points: Points = {evaluation: {} for evaluation in zoo.EVALUATIONS}
    for steps in lengths:
        found = zoo.gather([zoo.Run(name, steps, FLAGS.seed)])
        for evaluation, rows in found.items():
            if name in rows:
                points[evaluation][steps] = rows[name][FLAGS.seed]
    return points


def _table(points: dict[str, Points], lengths: list[int]) -> str:
    lines = [f"| linear / 20-NN | {' | '.join(f'{steps:,} steps' for steps in lengths)} |"]
    lines.append("|---" * (len(lengths) + 1) + "|")
    for name, by_evaluation in points.items():
        cells = [_pair(by_evaluation, steps) for steps in lengths]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pair(by_evaluation: Points, steps: int) -> str:
    values = (by_steps.get(steps) for by_steps in by_evaluation.values())
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values)


def _figure(points: dict[str, Points], lengths: list[int]) -> Figure:
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        plots = figure.subplots(1, len(zoo.EVALUATIONS), sharey=True)
        for ax, (evaluation, title) in zip(plots, zoo.EVALUATIONS.items(), strict=True):
            for (name, by_evaluation), color in zip(points.items(), style.LINES, strict=False):
                by_steps = by_evaluation[evaluation]
                label = METHOD_NAMES.get(name, name)
                ax.plot(by_steps.keys(), by_steps.values(), "o-", color=color, label=label)
            ax.set_xscale("log", base=2)
            ax.set_xticks(lengths, [f"{steps:,}" for steps in lengths])
            ax.set_xlabel("Training steps of 128 images")
            ax.set_title(f"{title[:1].upper()}{title[1:]} accuracy (%)")
        plots[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return figure


if __name__ == "__main__":
    zoo.define_flags(METHODS)
    flags.DEFINE_list("lengths", ["100", "200", "400"], "Numbers of steps.")
    flags.DEFINE_integer("seed", 0, "Seed of all runs.")
    flags.DEFINE_string("figure", "zoo_steps.png", "File of the figure: .png, .pdf or .svg.")
    app.run(main)
