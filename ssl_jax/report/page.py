"""The page of a run: one HTML file that carries its pictures and needs no network and no script."""

import base64
import html
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ssl_jax.errors import CANNOT_CREATE, Fault
from ssl_jax.report import curves, figures
from ssl_jax.report.files import Run, read, series

METHODS = {
    "barlow_twins": "Barlow Twins",
    "byol": "BYOL",
    "cpc": "CPC",
    "cssl": "CSSL",
    "dino": "DINO",
    "distillation": "Distillation",
    "mae": "MAE",
    "moco": "MoCo",  # versions 1 and 2
    "moco_v3": "MoCo v3",
    "npid": "NPID",
    "rbm": "RBM",
    "siamese": "Siamese",
    "simclr": "SimCLR",
    "simclr_v2": "SimCLR v2",
    "simsiam": "SimSiam",
    "swav": "SwAV",
    "vicreg": "VICReg",
}
ESCAPE = html.escape


def write(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes workdir/figures/*.png and workdir/report.html; returns the page's path.

    What the run has not produced yet is left out with a sentence in its place.

    Raises:
      Fault: there is no run, a file of it is damaged, or the page cannot be written.
    """
    run = read(workdir)
    path = run.workdir / "report.html"
    try:
        body = "\n".join(section(run) for section in SECTIONS)
        path.write_text(_document(title(run), body), encoding="utf-8")
    except OSError as error:
        raise Fault(f"{path}: cannot write the report ({error})", CANNOT_CREATE) from error
    return path


def title(run: Run) -> str:
    """ "SimCLR on cifar10", as far as the config tells."""
    method = METHODS.get(run.method, run.method) or "Self-supervised run"
    method += ", fine-tuned," if "finetune" in run.config else ""
    source = str(run.config.get("data", {}).get("source", "")).removeprefix("tfds:")
    return f"{method} on {source}" if source else method


def _document(name: str, body: str) -> str:
    style = pathlib.Path(__file__).with_name("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{ESCAPE(name)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(run: Run) -> str:
    model, train = run.config.get("model", {}), run.config.get("train", {})
    facts = [str(model["name"])] if "name" in model else []
    if model.get("width", 1) != 1:
        facts[-1:] = [f"{facts[-1]}, width {model['width']:g}"] if facts else []
    facts += [f"batch {run.batch_size:,}"] if run.batch_size else []
    if run.metrics:
        facts.append(f"{run.metrics[-1]['step']:,} steps")
        if epoch := run.metrics[-1].get("epoch"):
            facts.append(f"{epoch:.3g} epochs")
    facts += [f"seed {train['seed']}"] if "seed" in train else []
    return f"<header><h1>{ESCAPE(title(run))}</h1><p>{ESCAPE(' · '.join(facts))}</p></header>"


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{ESCAPE(heading)}</h2>\n{content}\n</section>"


def _absent(sentence: str) -> str:
    return f'<p class="absent">{ESCAPE(sentence)}</p>'


def order(name: str) -> tuple[bool, float]:
    """Sort key of evaluations: linear by its number of labels, all labels last; then kNN."""
    kind, _, count = name.partition("_")
    return kind != "linear", float(count) if count.isdigit() else float("inf")


def heading(evaluation: dict[str, Any]) -> str:
    """Column name of an evaluation."""
    protocol = evaluation.get("protocol", {})
    if evaluation.get("evaluation") == "knn":
        return f"kNN, k = {protocol.get('k', '?')}"
    if evaluation.get("evaluation") == "classifier":
        return "Own classifier"
    count = protocol.get("labels_per_class", 0)
    return f"Linear, {count} labels per class" if count else "Linear, all labels"


def _numbers(run: Run) -> str:
    if not run.evals:
        return _section(
            "Evaluation",
            _absent("Not evaluated yet, or the data has no labels: no eval/*.json in the workdir."),
        )
    evals = [run.evals[name] for name in sorted(run.evals, key=order)]
    sets = list(dict.fromkeys(name for e in evals for name in e["results"]))
    head = "".join(f"<th>{ESCAPE(heading(e))}</th>" for e in evals)
    rows = []
    for name in sets:
        lead = ' class="lead"' if name == run.method else ""
        shown = METHODS.get(name, name)
        cells = "".join(_cell(e["results"].get(name)) for e in evals)
        rows.append(f"<tr{lead}><th>{ESCAPE(shown)}</th>{cells}</tr>")
    steps = sorted({e["step"] for e in evals if "step" in e})
    when = f" of step {', '.join(f'{s:,}' for s in steps)}" if steps else ""
    first: dict[str, Any] = next(iter(evals[0]["results"].values()), {})
    counts = f" on {first['n_test']:,} test examples" if "n_test" in first else ""
    return _section(
        "Evaluation",
        f'<p class="note">Top-1 accuracy in per cent{ESCAPE(when + counts)}. '
        f"{ESCAPE(_labels_used(run))} "
        '<a href="#protocols">Protocols</a> are spelled out below.</p>\n'
        '<div class="scroll"><table class="numbers"><thead><tr><th>Features</th>'
        f"{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>",
    )


def _labels_used(run: Run) -> str:
    if "finetune" in run.config:
        return "Pre-trained without labels, then fine-tuned on some."
    return "Features are frozen; their training used no label."


def _cell(numbers: dict[str, Any] | None) -> str:
    if not isinstance((numbers or {}).get("accuracy"), float):
        return "<td>–</td>"
    assert numbers is not None
    percent = 100 * numbers["accuracy"]
    many = len(numbers.get("draws", ())) > 1
    spread = f' <span class="spread">± {100 * numbers["std"]:.1f}</span>' if many else ""
    return (
        f'<td><span class="value">{percent:.1f}</span>{spread}'
        f'<div class="bar"><i style="width:{percent:.1f}%"></i></div></td>'
    )


def _protocols(run: Run) -> str:
    if not run.evals:
        return ""
    evals = [run.evals[name] for name in sorted(run.evals, key=order)]
    tables = [f"<h3>{ESCAPE(heading(e))}</h3>{_table(e.get('protocol', {}))}" for e in evals]
    return f'<div id="protocols">{_section("Protocols", "".join(tables))}</div>'


def _training(run: Run) -> str:
    path = run.workdir / "figures" / "curves.png"
    if not curves.draw(run, curves.CURVES, path):
        return _section("Training", _absent("No step has been logged yet (metrics.jsonl)."))
    many = len(run.metrics) > curves.SMOOTH_FROM
    caption = "Thin: as logged; thick: running mean. " if many else ""
    if level := curves.chance(run, "contrastive_accuracy"):
        caption += f"Chance: the positive guessed among {1 / level:,.0f} candidates"
        loss = curves.chance(run, "loss")
        caption += f", a loss of ln {1 / level:,.0f} = {loss:.2f}. " if loss else ". "
    if len(series(run, "probe_accuracy")[0]):
        caption += "The online probe trains beside the encoder, on augmented train images behind a "
        caption += "stop-gradient: compare it with itself only."
    content = _facts(run) + _figure(path, "Curves of the training", caption)
    return _section("Training", content + _health(run))


def _health(run: Run) -> str:
    path = run.workdir / "figures" / "health.png"
    if not curves.draw(run, curves.HEALTH, path):
        return ""
    notes = " ".join(panel.note for panel in curves.shown(run, curves.HEALTH))
    caption = "Features of the images as trained on, at unit length, up to 256 a step. " + notes
    heading = "<h3>Do the features collapse?</h3>"
    return heading + _figure(path, "Spread of the features over the training", caption)


def _facts(run: Run) -> str:
    shown = []
    loss, rate = series(run, "loss")[1], series(run, "images_per_second")[1]
    if len(loss):
        shown.append((f"{loss[-1]:.3f}", "last loss"))
    if len(rate):
        shown.append((f"{np.median(rate):,.0f}", "images / s, median"))
        if run.batch_size:
            seconds = run.metrics[-1]["step"] * run.batch_size / np.median(rate)
            shown.append((_duration(seconds), "training, at that rate"))
    if device := run.metadata.get("device"):
        shown.append((f"{run.metadata.get('devices', 1)} × {device}", "device"))
    boxes = "".join(f"<div><b>{ESCAPE(b)}</b><span>{ESCAPE(s)}</span></div>" for b, s in shown)
    return f'<div class="facts">{boxes}</div>' if boxes else ""


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _views(run: Run) -> str:
    path = run.workdir / "figures" / "views.png"
    if not path.exists():
        return _section("Views", _absent("No picture of the views (figures/views.png)."))
    caption = "Every row: an image and the random views of it that the method sees."
    return _section("Views", _figure(path, "Random views of images", caption, narrow=True))


def _generated(run: Run) -> str:
    path = run.workdir / "figures" / "samples.png"
    if not path.exists():
        return ""
    caption = "Images that the model generates: draws from the density it has learned, none of "
    caption += "them in the data. If the density has components, a row comes from one of them."
    return _section("Generated images", _figure(path, "Generated images", caption, narrow=True))


def _map(run: Run) -> str:
    path = run.workdir / "figures" / "map.png"
    if not figures.feature_map(run, path):
        return _section("Map of the features", _absent(_no_sample(run)))
    count = min(len(run.sample["features"]), figures.MAP_POINTS)
    labelled = bool((run.sample["label"] >= 0).any())
    caption = f"{count:,} images in feature space. t-SNE on unit-length features after PCA "
    caption += "to 50 dimensions: it keeps neighbours together, distances between groups mean "
    caption += "little. " + ("Labels only colour the points." if labelled else "No labels.")
    return _section("Map of the features", _figure(path, "2-D map of the features", caption))


def _neighbours(run: Run) -> str:
    path = run.workdir / "figures" / "neighbours.png"
    if not figures.neighbours(run, path):
        return _section("Nearest neighbours", _absent(_no_sample(run)))
    caption = "Left of each row: a query; then its six nearest neighbours in cosine similarity "
    caption += f"among {len(run.sample['features']):,} images."
    if (share := figures.precision(run)) is not None:
        caption += " Blue: the query's class; orange, with its name: another. Over all queries, "
        caption += f"{100 * share:.1f} % of the six are of the query's class."
    return _section("Nearest neighbours", _figure(path, "Queries and their neighbours", caption))


def _no_sample(run: Run) -> str:
    if run.sample:
        return f"Needs {figures.MIN_POINTS} images whose features differ; the sample has fewer."
    if "finetune" in run.config:
        return "In the report of the pre-trained run: fine-tuning draws no sample of features."
    return "No sample of test features yet (eval/sample.npz)."


def _figure(path: pathlib.Path, alt: str, caption: str, *, narrow: bool = False) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure{" class=narrow" if narrow else ""}><img alt="{ESCAPE(alt)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{ESCAPE(caption)}</figcaption></figure>'
    )


def _reproduce(run: Run) -> str:
    command = run.metadata.get("command")
    if isinstance(command, list):
        command = " ".join(map(str, command))
    content = f"<pre>{ESCAPE(str(command))}</pre>" if command else ""
    rest = {key: value for key, value in run.metadata.items() if key != "command"}
    if not run.metadata:
        content = _absent("No metadata.json in the workdir.")
    return _section("Reproduce", content + (_table(_flat(rest)) if rest else ""))


def _config(run: Run) -> str:
    if not run.config:
        return _section("Configuration", _absent("No config.json in the workdir."))
    plain = {k: v for k, v in run.config.items() if not isinstance(v, dict)}
    groups = {k: v for k, v in run.config.items() if isinstance(v, dict)}
    tables = [_table(_flat(v), caption=k) for k, v in sorted(groups.items())]
    tables += [_table(plain)] if plain else []
    return _section("Configuration", f'<div class="columns">{"".join(tables)}</div>')


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _table(values: dict[str, Any], *, caption: str = "") -> str:
    rows = "".join(
        f"<tr><th>{ESCAPE(str(key))}</th><td>{ESCAPE(_text(value))}</td></tr>"
        for key, value in values.items()
    )
    name = f"<caption>{ESCAPE(caption)}</caption>" if caption else ""
    return f'<table class="settings">{name}<tbody>{rows}</tbody></table>'


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value in ("", None, {}) else str(value)


SECTIONS: tuple[Callable[[Run], str], ...] = (
    _header,
    _numbers,
    _training,
    _views,
    _map,
    _neighbours,
    _generated,
    _protocols,
    _reproduce,
    _config,
)
