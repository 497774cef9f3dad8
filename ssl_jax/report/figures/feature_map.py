"""Map of the features in 2-D: t-SNE, principal components and, if it is installed, UMAP."""

import importlib
import os
import sys
import warnings

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ssl_jax.report.figures.neighbours import MIN_POINTS, unit_rows
from ssl_jax.report.figures.style import BLUE, CLASSES, MARKERS, NAMED_CLASSES, STYLE, label, save
from ssl_jax.report.run_files import class_name

MAX_POINTS = 1500


def draw(
    features: np.ndarray, labels: np.ndarray, classes: list[str], path: str | os.PathLike[str]
) -> list[str]:
    """Draws features in 2-D, coloured by class; returns the names of the maps drawn.

    t-SNE (van der Maaten and Hinton 2008) and UMAP (McInnes et al. 2018, only with the package
    umap-learn) see unit-length features after PCA to 50 dimensions. Labels only colour the points.

    Args:
      features: float32 [n, f]; the first `MAX_POINTS` are drawn.
      labels: int [n], negative without a label.
      classes: class names.
      path: PNG file to write.

    Returns:
      []: no file was written, because there are too few features or all are equal (a collapse).
    """
    features, labels = features[:MAX_POINTS], labels[:MAX_POINTS]
    rows = unit_rows(features)
    if len(features) < MIN_POINTS or not np.ptp(rows, axis=0).max() > 1e-6:
        return []
    maps = _embed(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.8, 6.0 if len(maps) == 2 else 7.4), layout="constrained")
        layout = "ab" if len(maps) == 2 else "ab;ac"
        axes = figure.subplot_mosaic(layout, width_ratios=[1.55, 1])
        groups = _class_masks(labels, classes)
        for (title, xy), ax in zip(maps.items(), axes.values(), strict=True):
            large = ax is axes["a"]
            _scatter(ax, xy, groups, size=17 if large else 9, named=large and len(groups) <= 20)
            ax.set_title(title)
        if 1 < len(groups) <= NAMED_CLASSES:
            handles, names = axes["a"].get_legend_handles_labels()
            figure.legend(
                handles, names, loc="outside lower center", ncols=min(len(names), 10),
                markerscale=1.6, handletextpad=0.1, columnspacing=1.0, fontsize=9,
            )  # fmt: skip
        save(figure, path)
    return list(maps)


def _embed(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Embeds unit rows [n, f]; returns {name of the map: [n, 2]}, the main map first."""
    # At this size, threads wait for each other longer than they compute, especially on a busy host.
    with threadpool_limits(1):
        reduced = PCA(min(50, *rows.shape), random_state=0).fit_transform(rows)
        reduced = np.pad(reduced, ((0, 0), (0, max(0, 2 - reduced.shape[1]))))  # a map has 2 axes
        perplexity = min(30, (len(rows) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=500)
        maps = {"t-SNE": tsne.fit_transform(reduced)}
        if (embedded := _umap(reduced)) is not None:
            maps["UMAP"] = embedded
    return maps | {"First two principal components": reduced[:, :2]}


def _umap(reduced: np.ndarray) -> np.ndarray | None:
    """Embeds [n, f] by UMAP as [n, 2]; returns None without the package umap-learn."""
    module = "umap.parametric_umap"
    hidden = {module: None} if module not in sys.modules else {}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # the module imports all of TensorFlow
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numba's, and UMAP's that a seed disables threads
            umap = importlib.import_module("umap")
            model = umap.UMAP(n_neighbors=min(15, len(reduced) - 1), random_state=0)
            return model.fit_transform(reduced)
    except ImportError:
        return None
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def _class_masks(labels: np.ndarray, classes: list[str]) -> list[tuple[str, np.ndarray]]:
    """Returns (class name, mask [n]) for each class; one unnamed group without labels."""
    codes = np.unique(labels[labels >= 0])
    if not len(codes):
        return [("", np.ones(len(labels), bool))]
    return [(label(class_name(int(code), classes)), labels == code) for code in codes]


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
