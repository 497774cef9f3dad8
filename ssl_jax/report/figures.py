"""The pictures of a run, as PNG files: map of the features, neighbours, views."""

import math
import os
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ssl_jax.report.files import Run

INK, MUTED, RULE = "#1b2733", "#667585", "#d9dfe5"
BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito 2008: told apart with any colour vision
# Paul Tol's "muted" scheme and a grey, for classes.
CLASSES = (
    *("#332288", "#ddaa33", "#117733", "#cc6677", "#44aa99"),
    *("#882255", "#88ccee", "#999933", "#aa4499", "#777777"),
)
MARKERS = "o^sDvP"
NAMED_CLASSES = len(CLASSES) * len(MARKERS)  # beyond, colours would repeat
MAP_POINTS = 1500
GENERATED = 100  # images, ten in a row
MIN_POINTS = 10  # examples, for a map or neighbours
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#edf0f3",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


def feature_map(run: Run, path: str | os.PathLike[str]) -> bool:
    """Draws the sample's features in 2-D, PCA and t-SNE, by class.

    Returns False, and draws nothing, when there are too few or all are the same (a collapse).

    t-SNE (van der Maaten and Hinton 2008) sees unit-length features after PCA to 50 dimensions.
    Labels only colour the points.
    """
    features, labels, classes = _points(run)
    unit = _unit(features)
    if len(features) < MIN_POINTS or not np.ptp(unit, axis=0).max() > 1e-6:
        return False
    reduced, embedded = _embed(unit)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.8, 6.0), layout="constrained")
        big, small = figure.subplots(1, 2, width_ratios=[1.55, 1])
        groups = _groups(labels, classes)
        _scatter(big, embedded, groups, size=17, named=len(groups) <= 20)
        _scatter(small, reduced[:, :2], groups, size=9, named=False)
        big.set_title("t-SNE")
        small.set_title("First two principal components")
        if 1 < len(groups) <= NAMED_CLASSES:
            handles, names = big.get_legend_handles_labels()
            figure.legend(
                handles, names, loc="outside lower center", ncols=min(len(names), 10),
                markerscale=1.6, handletextpad=0.1, columnspacing=1.0, fontsize=9,
            )  # fmt: skip
        save(figure, path)
    return True


def _embed(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows [n, f] -> principal components [n, <= 50] and t-SNE [n, 2]."""
    # At this size threads wait for one another longer than they work, and more so on a busy host.
    with threadpool_limits(1):
        reduced = PCA(min(50, *unit.shape), random_state=0).fit_transform(unit)
        perplexity = min(30, (len(unit) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=500)
        return reduced, tsne.fit_transform(reduced)


def _points(run: Run) -> tuple[np.ndarray, np.ndarray, list[str]]:
    if not run.sample:
        return np.zeros((0, 1)), np.zeros(0, int), []
    features, labels = (run.sample[k][:MAP_POINTS] for k in ("features", "label"))
    return features, labels, [str(name) for name in run.sample["classes"]]


def _groups(labels: np.ndarray, classes: list[str]) -> list[tuple[str, np.ndarray]]:
    """(class name, mask) of every class in `labels`; one nameless group without labels."""
    found = np.unique(labels[labels >= 0])
    if not len(found):
        return [("", np.ones(len(labels), bool))]
    return [(class_name(int(code), classes), labels == code) for code in found]


def class_name(code: int, classes: Sequence[str]) -> str:
    """Name of a class, its number when there is no name, "" without a label."""
    if code < 0:
        return ""
    return classes[code] if code < len(classes) else str(code)


def _scatter(
    ax: Axes, xy: np.ndarray, groups: list[tuple[str, np.ndarray]], *, size: float, named: bool
) -> None:
    for i, (name, mask) in enumerate(groups):
        marker = MARKERS[i // len(CLASSES) % len(MARKERS)]
        color = CLASSES[i % len(CLASSES)] if len(groups) > 1 else BLUE
        ax.scatter(*xy[mask].T, s=size, c=color, marker=marker, alpha=0.8, lw=0, label=name)
    for name, mask in groups if named else ():
        x, y = np.median(xy[mask], axis=0)
        halo = [withStroke(linewidth=3.5, foreground="white")]
        ax.text(x, y, name, ha="center", va="center", size=10, weight="bold", path_effects=halo)
    ax.set(xticks=[], yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_aspect("equal", adjustable="datalim")


def nearest(features: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` nearest others in cosine similarity: [n, f] -> int [n, count]."""
    unit = _unit(features)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def precision(run: Run, count: int = 6) -> float | None:
    """Fraction of the sample's nearest neighbours that share the query's class; None unlabelled."""
    if not run.sample or len(run.sample["features"]) < MIN_POINTS:
        return None
    labels = run.sample["label"]
    same = labels[nearest(run.sample["features"], count)] == labels[:, None]
    return float(same[labels >= 0].mean()) if (labels >= 0).any() else None


def neighbours(run: Run, path: str | os.PathLike[str], *, count: int = 6) -> bool:
    """Draws queries, one of each class first, and their nearest neighbours in the sample.

    The frame says whether a neighbour is of the query's class. False when examples are too few.
    """
    if not run.sample or len(run.sample["features"]) < MIN_POINTS:
        return False
    labels, images = run.sample["label"], run.sample["image"]
    classes = [str(name) for name in run.sample["classes"]]
    rows, found = _queries(labels, 10), nearest(run.sample["features"], count)
    down = math.ceil(len(rows) / 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.8, 0.93 * down + 0.28))
        widths = [1, 0.14, *[1] * count, 0.45, 1, 0.14, *[1] * count]
        grid = figure.add_gridspec(
            down, len(widths), width_ratios=widths, wspace=0.1, hspace=0.3,
            left=0.005, right=0.995, top=1 - 0.26 / (0.93 * down + 0.28), bottom=0.015,
        )  # fmt: skip
        for i, query in enumerate(rows):
            line, column = i % down, i // down * (count + 3)
            ax = figure.add_subplot(grid[line, column])
            show(ax, images[query], frame=INK)
            ax.set_title(class_name(int(labels[query]), classes), size=8.5, pad=3, loc="center")
            for j, other in enumerate(found[query]):
                right = labels[other] == labels[query]
                frame = RULE if labels[query] < 0 else BLUE if right else ORANGE
                ax = figure.add_subplot(grid[line, column + 2 + j])
                show(ax, images[other], frame=frame)
                if labels[query] >= 0 and not right:
                    name = class_name(int(labels[other]), classes)
                    ax.set_title(name, size=8.5, pad=3, loc="center", color=ORANGE, weight="normal")
        save(figure, path)
    return True


def _queries(labels: np.ndarray, limit: int) -> list[int]:
    """Rows in turn over classes, so that every class is asked before any is asked twice."""
    turn = np.zeros(len(labels), int)
    for code in np.unique(labels):
        rows = np.flatnonzero(labels == code)
        turn[rows] = np.arange(len(rows))
    return np.lexsort((labels, turn))[:limit].tolist()


def view_grid(
    originals: Sequence[np.ndarray],
    views: np.ndarray,
    path: str | os.PathLike[str],
    *,
    local: np.ndarray | None = None,
) -> None:
    """Draws a row for every image: the original, then its random views, in proportion.

    Args:
      originals: uint8 [h, w, 3], of any sizes.
      views: [n, v, s, s, 3], uint8 or float in [0, 1].
      path: PNG file to write.
      local: the local views [n, l, s', s', 3], if there are any.
    """
    rows = [[original, *row] for original, row in zip(originals, views, strict=True)]
    titles = ["original", *(f"view {i + 1}" for i in range(views.shape[1]))]
    tall = views.shape[2]
    if local is not None:
        tall = max(tall, local.shape[2])
        rows = [[*row, _mosaic(crops, tall)] for row, crops in zip(rows, local, strict=True)]
        titles.append("local")
    widths = [1.0, *(image.shape[1] / tall for image in rows[0][1:])]
    side = min(1.5, 11.8 / sum(widths))
    height = len(rows) * side + 0.35
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(sum(widths) * side, height))
        axes = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
        figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.33 / height, wspace=0.06, hspace=0.06)
        for line, row in zip(axes, rows, strict=True):
            for ax, image in zip(line, row, strict=True):
                show(ax, image)
                ax.set_adjustable("datalim")  # so that all titles stand on one line
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, size=10, loc="center", pad=6)
        save(figure, path)


def sample_grid(images: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Draws generated images [n, s, s, 3], ten in a row, float in [0, 1]."""
    lines = math.ceil(len(images) / 10)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 0.7 * lines))
        axes = figure.subplots(lines, 10, squeeze=False)
        figure.subplots_adjust(0.005, 0.005, 0.995, 0.995, wspace=0.06, hspace=0.06)
        for ax, image in zip(axes.flat, images, strict=False):
            show(ax, image)
        for ax in axes.flat[len(images) :]:
            ax.set_axis_off()
        save(figure, path)


def _mosaic(crops: np.ndarray, height: int) -> np.ndarray:
    """Crops [l, s, s, 3] side by side on white, in as many lines as `height` pixels hold."""
    count, size = crops.shape[:2]
    gap = max(1, size // 12)
    columns = math.ceil(count / max(1, (height + gap) // (size + gap)))
    lines = math.ceil(count / columns)
    white = 255 if crops.dtype == np.uint8 else 1
    canvas = np.full((height, columns * (size + gap) - gap, 3), white, crops.dtype)
    top = (height - lines * (size + gap) + gap) // 2
    for i, crop in enumerate(crops):
        y, x = top + i // columns * (size + gap), i % columns * (size + gap)
        canvas[y : y + size, x : x + size] = crop
    return canvas


def show(ax: Axes, image: np.ndarray, *, frame: str = "") -> None:
    """Draws an image [h, w, 3], centred in a square, with a coloured frame when one is given."""
    small = max(image.shape[:2]) < 64
    ax.imshow(
        image if image.dtype == np.uint8 else np.clip(image, 0, 1),
        interpolation="nearest" if small else "antialiased",
    )
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
    ax.set_anchor("C")
    for spine in ax.spines.values():
        spine.set(visible=bool(frame), color=frame or "none", linewidth=2.6)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG; folders are made."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)  # no pyplot: no global state, no window system
    figure.savefig(path, dpi=150, facecolor="white")
