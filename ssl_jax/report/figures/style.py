"""Style of all figures: colours, fonts, and how a figure becomes a PNG file."""

import io
import os
import pathlib
import warnings

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssl_jax.jobs import files
from ssl_jax.report.formatting import one_line

INK, MUTED, RULE = "#1b2733", "#667585", "#d9dfe5"
BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito 2008: distinct with any colour vision
# Paul Tol's "muted" scheme and a grey, for classes.
CLASSES = (
    *("#332288", "#ddaa33", "#117733", "#cc6677", "#44aa99"),
    *("#882255", "#88ccee", "#999933", "#aa4499", "#777777"),
)
MARKERS = "o^sDvP"
NAMED_CLASSES = len(CLASSES) * len(MARKERS)  # with more classes, colours would repeat
# For groups of runs, and for lines of a study.
LINES = (
    *(BLUE, ORANGE, "#117733", "#aa4499", "#ddaa33", "#332288"),
    *("#44aa99", "#882255", "#88ccee", "#777777", "#999933", "#cc6677"),
)
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


FORMATS = (".png", ".pdf", ".svg")  # suffixes of picture files


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure in the format of the path's suffix, one of FORMATS; creates folders."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, picture(figure, path.suffix.lower().removeprefix(".")))


def png(figure: Figure) -> bytes:
    """Returns a figure as the content of a PNG file."""
    return picture(figure, "png")


def picture(figure: Figure, kind: str) -> bytes:
    """Returns a figure as the content of a file of the kind "png", "pdf" or "svg"."""
    FigureCanvasAgg(figure)  # without pyplot, which has global state and may need a window system
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack a class name's script: then the picture shows boxes, without a warning.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, dpi=150, facecolor="white", format=kind)
    return file.getvalue()


def label(text: str, limit: int = 24) -> str:
    """Prepares text from a run for matplotlib: one short line, never read as a formula."""
    text = one_line(text, limit).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # legends leave out names that start with _
