"""Page sections that consist of a figure and its caption.

They expect images as uint8 RGB [n, h, w, 3] in the run's sample (eval/sample.npz).
"""

from ssl_jax.report.display_names import evaluation_name
from ssl_jax.report.figures import confusion, feature_map, neighbours, saliency
from ssl_jax.report.figures.neighbours import MIN_POINTS
from ssl_jax.report.html_elements import figure, placeholder, section
from ssl_jax.report.run_files import Run, read_figure


def views_section(run: Run) -> str:
    """Shows figures/views.png, which training writes: images and their random views."""
    picture = read_figure(run, "views")
    if not picture:
        return section("Views", placeholder("No picture of the views exists (figures/views.png)."))
    caption = "Each row: an image, and the random views of it that the method sees."
    return section("Views", figure(picture, "Random views", caption, kind="narrow"))


def method_sections(run: Run) -> str:
    """Shows the pictures that the method drew at the end of training, each in a section."""
    sections = []
    for name, texts in run.pictures.items():
        if content := read_figure(run, name):
            picture = figure(content, texts["title"], texts["caption"], kind="narrow")
            sections.append(section(texts["title"], picture))
    return "\n".join(sections)


def feature_map_section(run: Run) -> str:
    """Draws and shows the sample's features in 2-D."""
    path = run.workdir / "figures" / "map.png"
    sample = run.sample
    maps = sample and feature_map.draw(sample["features"], sample["label"], run.classes, path)
    if not maps:
        return section("Map of the features", placeholder(_why_no_sample(run)))
    count = min(len(sample["features"]), feature_map.MAX_POINTS)
    labelled = bool((sample["label"] >= 0).any())
    algorithms = "t-SNE and UMAP" if "UMAP" in maps else "t-SNE"
    caption = f"{count:,} {run.noun}s in feature space. {algorithms} on unit-length features "
    caption += "after PCA to 50 dimensions: neighbours stay together, but distances between groups "
    caption += "and their sizes mean little. "
    caption += "Labels only colour the points." if labelled else "No labels."
    picture = figure(path.read_bytes(), "2-D map of the features", caption)
    return section("Map of the features", picture)


def neighbours_section(run: Run) -> str:
    """Draws and shows images whose features are most similar; "" for examples without image."""
    path = run.workdir / "figures" / "neighbours.png"
    sample = run.sample
    if sample and "image" not in sample:
        return ""
    if not sample:
        return section("Nearest neighbours", placeholder(_why_no_sample(run)))
    if not neighbours.draw(sample["image"], sample["features"], sample["label"], run.classes, path):
        return section("Nearest neighbours", placeholder(_why_no_sample(run)))
    caption = "Left of each row: a query; then its six nearest neighbours in cosine similarity "
    caption += f"among {len(sample['features']):,} images."
    if (share := neighbours.precision(sample["features"], sample["label"])) is not None:
        caption += " Blue: same class as the query; orange, with its name: another class. Over "
        caption += f"all queries, {100 * share:.1f} % of the six neighbours share the query's "
        caption += "class."
    picture = figure(path.read_bytes(), "Queries and their neighbours", caption)
    return section("Nearest neighbours", picture)


def confusion_section(run: Run) -> str:
    """Draws and shows which classes are confused; "" without predictions."""
    path = run.workdir / "figures" / "confusion.png"
    kind = confusion.draw(run.predictions, run.classes, path)
    if not kind:
        return ""
    name = confusion.choose_evaluation(run.predictions)
    title = evaluation_name(run.evals[name]) if name in run.evals else name.replace("_", " ")
    count = int((run.predictions["label"] >= 0).sum())
    caption = f"Predictions of the evaluation “{title}” for {count:,} test {run.noun}s. "
    if kind == "matrix":
        caption += "Each row is a true class and sums to 100 %. Blue: right; orange: predicted as "
        caption += "another class, darkest where most often. Cells below 0.5 % are blank. "
    else:
        caption += f"The {confusion.MAX_PAIRS} most frequent confusions: true class → predicted "
        caption += f"class, and the share of the true class's {run.noun}s. "
    caption += "The figure shows the errors of one classifier on these features; another "
    caption += "classifier on the same features may make other errors."
    size = "narrow" if kind == "matrix" else ""
    picture = figure(path.read_bytes(), "Classes taken for one another", caption, kind=size)
    return section("Confused classes", picture)


def saliency_section(run: Run) -> str:
    """Draws and shows which parts of an image change its features; "" without saliency."""
    path = run.workdir / "figures" / "saliency.png"
    heat = run.sample.get("saliency")
    if heat is None or not saliency.draw(
        run.sample["image"], heat, run.sample["label"], run.classes, path
    ):
        return ""
    cells = heat.shape[1]
    caption = f"Each of {cells} × {cells} parts of an image is covered in turn by the image's mean "
    caption += "colour. Orange: how much the features change, 1 − cosine, on one scale for all "
    caption += "images (Zeiler and Fergus 2014, section 4, who used the class score). No label is "
    caption += "used. The figure shows which single parts the features depend on, but not why. A "
    caption += "part whose content another part repeats stays pale."
    return section("What the features notice", figure(path.read_bytes(), "Saliency", caption))


def _why_no_sample(run: Run) -> str:
    if run.sample:
        return f"Needs {MIN_POINTS} {run.noun}s whose features differ; the sample has fewer."
    if "finetune" in run.config:
        return "See the report of the pre-trained run: fine-tuning saves no sample of features."
    return "No sample of test features exists yet (eval/sample.npz)."
