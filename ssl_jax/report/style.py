"""What all pictures share: colours, type, and how they become PNG files."""

import io
import os
import pathlib
import warnings

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssl_jax.report.plain import clean

INK, MUTED, RULE = "#1b2733", "#667585", "#d9dfe5"
BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito 2008: told apart with any colour vision
# Paul Tol's "muted" scheme and a grey, for classes.
CLASSES = (
    *("#332288", "#ddaa33", "#117733", "#cc6677", "#44aa99"),
    *("#882255", "#88ccee", "#999933", "#aa4499", "#777777"),
)
MARKERS = "o^sDvP"
NAMED_CLASSES = len(CLASSES) * len(MARKERS)  # beyond, colours would repeat
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


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG; folders are made."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure))


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    FigureCanvasAgg(figure)  # no pyplot: no global state, no window system
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A class may be named in a script that the font lacks: boxes, but a picture.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, dpi=150, facecolor="white")
    return file.getvalue()


def label(text: str, limit: int = 24) -> str:
    """Text of others as matplotlib is to draw it: on one line, short, and no formula."""
    text = clean(text, limit).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # legends leave out what begins with _
