"""Sections of the page that are pictures."""

from ssl_jax.report import confusion, figures, maps, saliency
from ssl_jax.report.evaluation import heading
from ssl_jax.report.files import Run
from ssl_jax.report.markup import absent, figure, section


def views(run: Run) -> str:
    """What the method sees."""
    path = run.workdir / "figures" / "views.png"
    if not path.exists():
        return section("Views", absent("No picture of the views (figures/views.png)."))
    caption = "Every row: an image and the random views of it that the method sees."
    return section("Views", figure(path.read_bytes(), "Random views", caption, kind="narrow"))


def generated(run: Run) -> str:
    """What the model draws, if it does."""
    path = run.workdir / "figures" / "samples.png"
    if not path.exists():
        return ""
    caption = "Images that the model generates: draws from the density it has learned, none of "
    caption += "them in the data. If the density has components, a row comes from one of them."
    picture = figure(path.read_bytes(), "Generated images", caption, kind="narrow")
    return section("Generated images", picture)


def feature_map(run: Run) -> str:
    """The features in 2-D."""
    path = run.workdir / "figures" / "map.png"
    drawn = maps.feature_map(run, path)
    if not drawn:
        return section("Map of the features", absent(_no_sample(run)))
    count = min(len(run.sample["features"]), maps.MAP_POINTS)
    labelled = bool((run.sample["label"] >= 0).any())
    both = "t-SNE and UMAP" if "UMAP" in drawn else "t-SNE"
    caption = f"{count:,} images in feature space. {both} on unit-length features after PCA "
    caption += "to 50 dimensions: neighbours stay together, distances between groups and their "
    caption += "sizes mean little. "
    caption += "Labels only colour the points." if labelled else "No labels."
    picture = figure(path.read_bytes(), "2-D map of the features", caption)
    return section("Map of the features", picture)


def neighbours(run: Run) -> str:
    """What the features find alike."""
    path = run.workdir / "figures" / "neighbours.png"
    if not figures.neighbours(run, path):
        return section("Nearest neighbours", absent(_no_sample(run)))
    caption = "Left of each row: a query; then its six nearest neighbours in cosine similarity "
    caption += f"among {len(run.sample['features']):,} images."
    if (share := figures.precision(run)) is not None:
        caption += " Blue: the query's class; orange, with its name: another. Over all queries, "
        caption += f"{100 * share:.1f} % of the six are of the query's class."
    picture = figure(path.read_bytes(), "Queries and their neighbours", caption)
    return section("Nearest neighbours", picture)


def confused(run: Run) -> str:
    """Which classes are taken for which, where predictions were kept."""
    path = run.workdir / "figures" / "confusion.png"
    kind = confusion.draw(run, path)
    if not kind:
        return ""
    name = confusion.chosen(run)
    by = heading(run.evals[name]) if name in run.evals else name.replace("_", " ")
    count = int((run.predictions["label"] >= 0).sum())
    caption = f"Predictions of the evaluation “{by}” for {count:,} test images. "
    if kind == "matrix":
        caption += "Every row is a true class and sums to 100 %; blue: right; orange: taken "
        caption += "for another class, darkest where most often. Below 0.5 % a cell is blank. "
    else:
        caption += f"The {confusion.PAIRS} most frequent confusions: true class → predicted class, "
        caption += "and the share of the true class's images that go there. "
    caption += "It shows the errors of one classifier on these features; another one on the same "
    caption += "features may err elsewhere."
    wide = "narrow" if kind == "matrix" else ""
    picture = figure(path.read_bytes(), "Classes taken for one another", caption, kind=wide)
    return section("Confused classes", picture)


def occluded(run: Run) -> str:
    """What the features notice."""
    path = run.workdir / "figures" / "saliency.png"
    if not saliency.draw(run, path):
        return ""
    cells = run.sample["saliency"].shape[1]
    caption = f"Each of {cells} × {cells} parts of an image is covered by the image's mean colour "
    caption += "in turn; orange: how far the features turn away, 1 − cosine, on one scale for all "
    caption += "images (Zeiler and Fergus 2014, section 4, who did so by class). No label is "
    caption += "used. It says which parts the features depend on one at a time: not why, and a "
    caption += "part that another one repeats stays pale."
    return section("What the features notice", figure(path.read_bytes(), "Saliency", caption))


def _no_sample(run: Run) -> str:
    if run.sample:
        return f"Needs {figures.MIN_POINTS} images whose features differ; the sample has fewer."
    if "finetune" in run.config:
        return "In the report of the pre-trained run: fine-tuning draws no sample of features."
    return "No sample of test features yet (eval/sample.npz)."
