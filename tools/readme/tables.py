"""README's tables and those of results/README.md, in Markdown."""

from typing import Any

import pandas as pd

from ser_utils.evaluation.results import load_published
from ser_utils.evaluation.splits import PROTOCOLS
from ser_utils.names import corpora_of
from ser_utils.profiles import settings, systems
from ser_utils.systems.sigwavnet import accelerator
from tools.readme.datasets import Dataset, same_result, shown_models, title_of

COSTS = {"parameters": ",.0f", "seconds_to_train": ".0f", "ms_per_utterance": ".1f"}
METRIC = {"uar": "UAR", "accuracy": "accuracy", "macro_f1": "F1"}


def markdown(heads: list[str], rows: list[list[str]], n_words: int) -> str:
    """A table in Markdown, the first `n_words` columns to the left, numbers to the right; "" without rows."""
    lines = [heads, ["---"] * n_words + ["---:"] * (len(heads) - n_words), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) if rows else ""


def markdown_of(rows: list[dict[str, Any]], n_words: int) -> str:
    """A table of rows that name their cells; see `markdown`."""
    return markdown(list(rows[0]), [[str(cell) for cell in row.values()] for row in rows], n_words)


def dataset_table(data: Dataset) -> str:
    """One dataset's models by protocol, their seeds and costs, as a table in Markdown.

    Seeds and costs are those of the strictest protocol the model was run under.
    """
    heads = ["system", "model", *PROTOCOLS, "seeds", "parameters", "s to train", "ms per utterance"]
    lines, whole = [], data.whole
    for system, model in shown_models(whole):
        rows = whole[(whole["system"] == system) & (whole["model"] == model)]
        cells = [data.cell(rows[rows["protocol"] == protocol]) for protocol in PROTOCOLS]
        cells.append(data.n_seeds(rows.iloc[-1]))
        cost = same_result(data.costs, rows.iloc[-1])
        cells += [_number(cost[name], form) if len(cost) else "–" for name, form in COSTS.items()]
        lines.append([system, model, *cells])
    return markdown(heads, lines + _not_run(whole, len(heads) - 2), 2)


def _number(values, form) -> str:
    return "–" if pd.isna(values.iloc[0]) else format(values.iloc[0], form)


def _not_run(rows, n_cells) -> list[list[str]]:
    """Rows of systems that need published weights, where none of them has scores."""
    there = set(rows["system"])
    return [
        [name, f"needs `{declared.needs}`", *["–"] * n_cells]
        for name, declared in systems().items()
        if declared.needs and name not in there
    ]


def overview(datasets: list[Dataset]) -> str:
    """All systems on all datasets, under the published split and for new speakers, as a table in Markdown."""
    names = [f"{data.title}, {split}" for data in datasets for split in ("`paper`", "new speakers")]
    lines = []
    whole = pd.concat([data.whole for data in datasets])
    speaker = whole[whole["protocol"] == "speaker"]
    for system in systems():
        models = [model for name, model in shown_models(speaker) if name == system]
        for model in models[: 2 if system == "baseline" else 1]:
            cells = [_published(system, model, [data.name for data in datasets])]
            for data in datasets:
                rows = data.whole[(data.whole["system"] == system) & (data.whole["model"] == model)]
                cells += [data.cell(rows[rows["protocol"] == protocol]) for protocol in ("paper", "speaker")]
            lines.append([system, model, *cells])
    return markdown(["system", "model", "published", *names], lines + _not_run(whole, len(names) + 1), 3)


def _published(system, model, datasets) -> str:
    """What a system's source reports, under its own split and on a dataset that is shown where it can be."""
    table = load_published().query("system == @system")
    table = table.assign(
        strict=table["protocol"] != "paper",
        elsewhere=~table["dataset"].isin(datasets),
        other=table["model"] != model,
        f1=table["metric"] == "macro_f1",
    )
    if table.empty:
        return "–"
    row = table.sort_values(["strict", "elsewhere", "other", "f1"], kind="stable").iloc[0]
    other = f", `{row['model']}`" if row["other"] else ""
    split = ", new speakers" if row["protocol"] == "speaker" else ""
    return f"{100 * float(row['value']):.1f} {METRIC[row['metric']]}, {title_of(row['dataset'])}{split}{other}"


def one_voice_table(datasets: list[Dataset]) -> str:
    """Models that know one speaker beside the baselines, on exactly the same clips; "" where there are none."""
    heads = ["corpus", "system", "split", "clips", "per-speaker models", "mfcc", "loudness", "difference from mfcc"]
    lines = []
    for data in datasets:
        for row in data.one_voice.to_dict("records"):
            cells = [f"{100 * row[name]:.1f}" for name in ("uar", "mfcc", "loudness")]
            gap = f"{100 * row['difference']:+.1f} (p {row['p']:.2g})"
            about = [data.title, row["system"], f"`{row['protocol']}`", str(row["n_utterances"])]
            lines.append([*about, *cells, gap])
    return markdown(heads, lines, 3)


def adaptation_table(datasets: list[Dataset]) -> str:
    """Models with nothing and with unlabelled clips known of a new speaker, a column each; "" where there are none."""
    pairs = {(row.system, row.knows_nothing, row.model) for data in datasets for row in data.adapted.itertuples()}
    kinds = ("nothing known", "adapted", "gain")
    heads = [f"{data.title}, {kind}" for data in datasets for kind in kinds]
    lines = []
    for system, *models in sorted(pairs, key=lambda pair: ([*systems()].index(pair[0]), pair)):
        cells = []
        for data in datasets:
            rows = data.whole[(data.whole["protocol"] == "speaker") & (data.whole["system"] == system)]
            cells += [data.cell(rows[rows["model"] == model]) for model in models]
            cells.append(_gain(data, system, models[1]))
        lines.append([system, models[0], *cells])
    return markdown(["system", "model", *heads], lines, 2)


def _gain(data, system, model) -> str:
    rows = data.adapted
    rows = rows[(rows["system"] == system) & (rows["model"] == model)] if len(rows) else rows
    return f"{100 * rows.iloc[0]['difference']:+.1f} (p {rows.iloc[0]['p']:.2g})" if len(rows) else "–"


def steps_table(datasets: list[Dataset]) -> str:
    """What each thing that was tried brought on new speakers, a column a dataset, in Markdown; "" where nothing was."""
    steps = [data.steps.set_index(["step", "system", "model", "without"]) for data in datasets if len(data.steps)]
    names = [data.title for data in datasets if len(data.steps)]
    lines = []
    for key in dict.fromkeys(key for table in steps for key in table.index):
        cells = [_difference(table.loc[key]) if key in table.index else "–" for table in steps]
        lines.append([key[0], f"{key[1]} {key[2]}", key[3], *cells])
    return markdown(["step", "with", "without", *names], lines, 3)


def _difference(row) -> str:
    interval = "" if pd.isna(row["low"]) else f" ({100 * row['low']:+.0f} to {100 * row['high']:+.0f})"
    return f"{100 * row['difference']:+.1f}{interval}, p {row['p']:.2g}"


def corpora_table(data: Dataset) -> str:
    """UAR of new speakers on each of several corpora that a model was trained on together; "" for a single corpus."""
    rows, shown = data.corpora, shown_models(data.whole)
    if "+" not in data.name or rows.empty:
        return ""
    rows = rows[rows["protocol"] == "speaker"]
    corpora = corpora_of(data.name)
    lines = []
    for system, model in shown:
        of_model = rows[(rows["system"] == system) & (rows["model"] == model)].set_index("corpus")["uar"]
        if len(of_model):
            lines.append([system, model, *[f"{100 * of_model[corpus]:.1f}" for corpus in corpora]])
    return markdown(["system", "model", *map(title_of, corpora)], lines, 2)


def crossed_table(across: pd.DataFrame) -> str:
    """UAR from corpus to corpus in Markdown, without normalisation and with.

    Parameters
    ----------
    across : 11_across.csv of several corpora
    """
    uar = across.pivot(index=["model", "trained_on"], columns=["tested_on", "normalised"], values="uar")
    corpora = list(dict.fromkeys(across["tested_on"]))
    order = list(dict.fromkeys(across[["model", "trained_on"]].itertuples(index=False, name=None)))
    lines = []
    for model, trained_on in order:
        cells = []
        for corpus in corpora:
            pair = [f"{100 * value:.0f}" for value in uar.loc[(model, trained_on), corpus].reindex(["none", "corpus"])]
            text = " → ".join(value for value in pair if value != "nan") or "–"
            cells.append(f"**{text}**" if corpus in trained_on.split("+") and text != "–" else text)
        lines.append([model.replace("_", " "), title_of(trained_on), *cells])
    return markdown(["model", "trained on", *map(title_of, corpora)], lines, 2)


def published_table(table) -> str:
    """Published figures and ours, with what has to agree for the protocol to be the same, in Markdown."""
    facts = {"classes": "classes", "clips": "clips", "n_folds": "folds", "parameters": "parameters", "epochs": "epochs"}
    heads = [f"{name}, theirs / ours" for name in facts.values()]
    lines = []
    for row in table[table["ours"].notna()].to_dict("records"):
        pairs = [f"{_count(row[key])} / {_count(row[f'our {key}'])}" for key in facts]
        scores = [f"{100 * float(row[name]):.1f}" for name in ("published", "ours")]
        about = [row["system"], row["model"], row["protocol"], METRIC[row["metric"]]]
        lines.append([*about, *scores, *pairs, "yes" if str(row["agree"]) == "True" else "no"])
    names = ["system", "model", "split", "metric", "published", "ours", *heads, "same protocol"]
    return markdown(names, lines, 4) or "No model with a published score was run here."


def sizes_table(data) -> str:
    """Networks at their published sizes beside the published accuracy and the baselines, in Markdown."""
    names = ["system", "n", "split", "draws or folds", "epochs", "parameters", "published accuracy", "accuracy", "UAR"]
    lines = []
    published = load_published().query("dataset == @data.name and protocol == 'paper' and metric == 'accuracy'")
    published = published.set_index("system")["value"].astype(float)
    for row in [*data.sizes.to_dict("records"), *data.wavelets.to_dict("records")]:
        stands = row["protocol"] == "paper" and row.get("n") == settings(row["system"], "paper").get("n")
        there = f"{100 * published[row['system']]:.1f}" if stands and row["system"] in published else "–"
        cells = [
            row["system"],
            row.get("n", "–"),
            f"`{row['protocol']}`",
            row["trainings"],
            row["epochs"],
            f"{row['parameters']:,}",
        ]
        cells += [there, f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_sd']:.1f}"]
        cells += [f"{100 * row['uar']:.1f} ({100 * row['uar_low']:.0f}–{100 * row['uar_high']:.0f})"]
        cells += ["–" if pd.isna(row[name]) else f"{100 * row[name]:.1f}" for name in accelerator.BESIDE]
        lines.append([*map(str, cells)])
    return markdown([*names, *accelerator.BESIDE], lines, 3)


def nets_at_published_settings(data) -> list[str]:
    """The study of spectrogram CNNs at its published settings: its trainings, its findings and what carries them, in Markdown."""
    nets, n_draws = data.nets, len(data.nets["draws"].iloc[0].split())
    trained = [
        {
            "net": row.net,
            "learning rate": f"{row.rate:g}",
            "epochs, theirs / ours": f"{row.epochs_published} / {row.epochs}",
            "published": f"{100 * row.published:.1f} ({100 * row.low:.0f}–{100 * row.high:.0f})",
            "best (mean ± sd)": f"{100 * row.best:.1f} ± {100 * row.spread:.1f}",
            "each draw": _in_percent(row.draws, ".1f"),
            "neighbours": f"{100 * row.neighbours:.1f}",
            "last": f"{100 * row.last:.1f}",
        }
        for row in nets.itertuples()
    ]
    text = [
        f"The {len(nets)} published trainings of the spectrogram CNNs at their published settings, on {n_draws} draws of the "
        "published split, most of them trained on an accelerator. Accuracy in %; the interval is that of a net with the "
        "published accuracy on as many test clips. *Best*: the epoch is chosen on test, as published. *Neighbours*: the ten epochs "
        "around it. *Last*: the last epoch. `python -m tools.published_nets NET RATE PROTOCOL` makes one of them again, on two cores in hours.",
        markdown_of(trained, 1),
    ]
    if data.departures:
        text += [
            "What differs from the source, and between these trainings:",
            "\n".join(f"- {x}" for x in data.departures),
        ]
    if len(data.splits):
        rows = [
            {
                "net": row.net,
                "learning rate": f"{row.rate:g}",
                "epochs, tested / validated": f"{row.epochs} / {row.epochs_validated}",
                "best": f"{100 * row.best:.1f}",
                "neighbours": f"{100 * row.neighbours:.1f}",
                "validated": f"{100 * row.validated:.1f}",
                "new speakers": f"{100 * row.new_speakers:.1f}",
            }
            for row in data.splits.itertuples()
        ]
        text += [
            f"We trained {len(rows)} of these nets again, at the learning rates below. *Validated*: validation clips choose the epoch, "
            "which leaves a quarter fewer clips for training. *New speakers*: the same, and one speaker at a time is left out. Mean "
            "accuracy in %:",
            markdown_of(rows, 1),
        ]
    if len(data.findings):
        asked = pd.concat([data.findings, data.faults])
        rows = [
            {
                "claim": row.claim,
                "split": f"`{row.protocol}`",
                "published": "–" if pd.isna(row.published) else f"{100 * row.published:+.1f}",
                "difference": f"{100 * row.difference:+.1f} ({100 * row.low:+.0f} to {100 * row.high:+.0f})",
                "p": f"{row.p:.2g}",
                "each draw or new speaker": _in_percent(row.draws, "+.1f"),
            }
            for row in asked.itertuples()
        ]
        text += [
            "The study's findings: differences of UAR in points over all draws, with intervals and tests over speakers (no p is "
            "corrected for the number of rows), and the difference of accuracy in each draw. Under `paper`, test chooses the epoch, as "
            "published; else validation does. The last rows are the resized net with four layers at 0.001 and one part of the "
            "artificial data at a time.",
            markdown_of(rows, 2),
        ]
    return text


def _in_percent(numbers, form) -> str:
    return " ".join(f"{100 * float(number):{form}}" for number in numbers.split())


def _count(value) -> str:
    try:
        return "?" if pd.isna(value) else f"{float(value):,.0f}"
    except ValueError:
        return str(value)
