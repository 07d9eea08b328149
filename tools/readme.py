"""README's tables and results/README.md, written from results/: no number in them is typed."""

from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import pandas as pd

from ser_utils.corpora.loading import CORPORA
from ser_utils.evaluation import metrics
from ser_utils.evaluation.results import NAME, label_of, load_published, sort_results
from ser_utils.evaluation.splits import FITTED, PROTOCOLS
from ser_utils.profiles import settings, systems
from ser_utils.systems.sigwavnet import accelerator
from ser_utils.workspace import REPOSITORY, atomic_path, read_json

MARKS = ("<!-- scores -->", "<!-- /scores -->")
COSTS = {"parameters": ",.0f", "seconds_to_train": ".0f", "ms_per_utterance": ".1f"}
METRIC = {"uar": "UAR", "accuracy": "accuracy", "macro_f1": "F1"}
ALPHA = 0.05
NOT_RANDOM = ("opensmile", "baseline")  # their training has no seed
CHOSEN = "†"
ABOUT_CHOSEN = (
    f"{CHOSEN}: a setting of this model was chosen by looking at scores of test clips of this corpus, so the score is "
    "probably a little too good"
)


def replace_between(marks: tuple[str, str], path: Path, text: str) -> None:
    """Put text between two marks of a Markdown page, which stay.

    Raises
    ------
    SystemExit : if the marks are not there once each
    """
    page = path.read_text("utf-8")
    if any(page.count(mark) != 1 for mark in marks):
        raise SystemExit(f"{path} needs the marks {' … '.join(marks)} once each, around the table.")
    head, rest = page.split(marks[0])
    with atomic_path(path) as temporary:
        temporary.write_text(f"{head}{marks[0]}\n\n{text}\n\n{marks[1]}{rest.split(marks[1])[1]}", "utf-8")


class Dataset:
    """One folder of results/ as tables."""

    def __init__(self, folder: Path):
        self.name, self.title = folder.name, title_of(folder.name)
        self.scores, self.made = read_scores(folder / "scores.csv"), read_json(folder / "provenance.json")
        self.costs, self.speakers = self._table(folder, "costs"), self._table(folder, "11_speakers")
        self.seeds, self.fall = self._table(folder, "11_seeds"), self._table(folder, "11_fall")
        self.one_voice, self.beaten = self._table(folder, "11_one_voice"), self._table(folder, "11_beaten")
        self.published, self.adapted = self._table(folder, "11_published"), self._table(folder, "11_adapted")
        self.across, self.steps = self._table(folder, "11_across"), self._table(folder, "11_steps")
        self.sizes = self._table(folder, accelerator.TABLE)
        self.wavelets = self._table(folder, accelerator.TABLES["sigwavnet"])
        self.nets, self.findings = self._table(folder, "04_published"), self._table(folder, "04_published_findings")
        self.splits, self.faults = (
            self._table(folder, "04_published_splits"),
            self._table(folder, "04_published_faults"),
        )

    @staticmethod
    def _table(folder, name):
        path = folder / f"{name}.csv"
        words = dict.fromkeys([*NAME, "speaker"], str)
        return pd.read_csv(path, dtype=words) if path.exists() else pd.DataFrame()

    @cached_property
    def whole(self) -> pd.DataFrame:
        """Scores of whole utterances, in the order of tables."""
        return sort_results(self.scores[self.scores["level"] == "utterance"])

    def extent(self) -> str:
        return extent(self.name, self.made["notebooks"][systems()["baseline"].notebook]["n_utterances"], self.scores)

    def cell(self, rows: pd.DataFrame) -> str:
        """UAR in percent of the row with the most utterances: with its interval, or with each speaker's own.

        Where several seeds were run it is their mean, and the interval holds the seeds too. CHOSEN marks what was chosen on
        test, unless the published protocol of the system chooses the epoch there.
        """
        if rows.empty:
            return "–"
        row = rows.loc[rows["n_utterances"].idxmax()]
        runs = _same_result(self.seeds, row)
        uar, low, high = row["uar"], row["uar_low"], row["uar_high"]
        published = row["protocol"] == "paper" and systems()[row["system"]].epoch_chosen_on_test
        mark = CHOSEN if not published and FITTED["selection"] in row["leaks"].split("; ") else ""
        if len(runs):
            uar, low, high = runs.iloc[0][["uar_mean", "uar_low", "uar_high"]]
            mark += f" ±{100 * runs.iloc[0]['uar_sd']:.1f}"
        if not pd.isna(low):
            return f"{100 * uar:.1f}{mark} ({100 * low:.0f}–{100 * high:.0f})"
        return f"{100 * uar:.1f}{mark} {_each(_same_result(self.speakers, row))}".rstrip()

    def n_seeds(self, row: pd.Series) -> str:
        """How many seeds a result rests on, or "–" where its training has none."""
        if row["system"] in NOT_RANDOM:
            return "–"
        runs = _same_result(self.seeds, row)
        return str(runs.iloc[0]["n_seeds"]) if len(runs) else "1"


def _same_result(table, row) -> pd.DataFrame:
    return table[(table[NAME] == row[NAME]).all(axis=1)] if len(table) else table


def _each(speakers) -> str:
    """The UAR of each of a few speakers: "[36 45 49]"."""
    if speakers.empty or len(speakers) >= metrics.FEWEST_SPEAKERS:
        return ""
    return f"[{' '.join(f'{100 * uar:.0f}' for uar in speakers['uar'])}]"


def read_scores(path: Path) -> pd.DataFrame:
    """Read a scores.csv, whose text columns may look like numbers or be empty."""
    empty = {"uar_low": [""], "uar_high": [""]}
    return pd.read_csv(path, dtype=dict.fromkeys(NAME, str), keep_default_na=False, na_values=empty)


def title_of(dataset: str) -> str:
    """ "ravdess+emodb" → "RAVDESS + EmoDB"."""
    if dataset == "demo":
        return "Demo corpus (synthetic)"
    return " + ".join(CORPORA[name].title if name in CORPORA else name for name in dataset.split("+"))


def listing_place(dataset: str) -> tuple:
    """Sort key of datasets: corpora in the order they are listed in, then readers' own, synthetic speech last."""
    known, first = [*CORPORA], dataset.split("+")[0]
    return dataset == "demo", known.index(first) if first in known else len(known), dataset


def score_files(root: Path) -> list[Path]:
    """Every results/*/scores.csv, in the order datasets are listed in."""
    return sorted(root.glob("results/*/scores.csv"), key=lambda path: listing_place(path.parent.name))


def extent(dataset: str, n_utterances: int, scores: pd.DataFrame) -> str:
    """What the scores of a dataset are of: "339 of 535 recordings, 10 speakers, 4 of 7 emotions, chance 25.0"."""
    corpus, n_speakers = CORPORA.get(dataset), scores["n_speakers"].max()
    chance = scores.loc[scores["model"] == "chance", "uar"].max()
    counts = [(n_utterances, corpus.n_files - len(corpus.broken) if corpus else 0, "recordings")]
    counts += [(n_speakers, len(corpus.speakers) if corpus else 0, "speakers")]
    if chance > 0:
        counts += [(round(1 / chance), len(corpus.emotions) if corpus else 0, "emotions")]
    parts = [f"{n:,} of {whole:,} {what}" if whole > n else f"{n:,} {what}" for n, whole, what in counts]
    return ", ".join(parts + ([f"chance {100 * chance:.1f}"] if chance > 0 else []))


def shown_models(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """The models that stand for their systems, as (system, model), in the order of tables."""
    there = dict.fromkeys(scores[NAME[:2]].itertuples(index=False, name=None))
    return [
        (name, model)
        for name, declared in systems().items()
        for pattern in declared.models
        for system, model in there
        if system == name and fnmatch(model, pattern)
    ]


def dataset_table(data: Dataset) -> str:
    """One dataset's models by protocol, their seeds and costs, as a table in Markdown.

    Seeds and costs are those of the strictest protocol the model was run under.
    """
    lines = [f"| system | model | {' | '.join(PROTOCOLS)} | seeds | parameters | s to train | ms per utterance |"]
    lines.append("|---|---|" + "---:|" * (len(PROTOCOLS) + 4))
    whole = data.whole
    for system, model in shown_models(whole):
        rows = whole[(whole["system"] == system) & (whole["model"] == model)]
        cells = [data.cell(rows[rows["protocol"] == protocol]) for protocol in PROTOCOLS]
        cells.append(data.n_seeds(rows.iloc[-1]))
        cost = _same_result(data.costs, rows.iloc[-1])
        cells += [_number(cost[name], form) if len(cost) else "–" for name, form in COSTS.items()]
        lines.append(f"| {system} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines + _not_run(whole, len(PROTOCOLS) + 4))


def _number(values, form) -> str:
    return "–" if pd.isna(values.iloc[0]) else format(values.iloc[0], form)


def _not_run(rows, n_cells) -> list[str]:
    """Lines of systems that need published weights, where none of them has scores."""
    there = set(rows["system"])
    return [
        f"| {name} | needs `{declared.needs}` |{' – |' * n_cells}"
        for name, declared in systems().items()
        if declared.needs and name not in there
    ]


def overview(datasets: list[Dataset]) -> str:
    """All systems on all datasets, under the published split and for new speakers, as a table in Markdown."""
    names = [f"{data.title}, {split}" for data in datasets for split in ("`paper`", "new speakers")]
    lines = [f"| system | model | published | {' | '.join(names)} |", "|---|---|---|" + "---:|" * len(names)]
    whole = pd.concat([data.whole for data in datasets])
    speaker = whole[whole["protocol"] == "speaker"]
    for system in systems():
        models = [model for name, model in shown_models(speaker) if name == system]
        for model in models[: 2 if system == "baseline" else 1]:
            cells = [_published(system, model, [data.name for data in datasets])]
            for data in datasets:
                rows = data.whole[(data.whole["system"] == system) & (data.whole["model"] == model)]
                cells += [data.cell(rows[rows["protocol"] == protocol]) for protocol in ("paper", "speaker")]
            lines.append(f"| {system} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines + _not_run(whole, len(names) + 1))


def _published(system, model, datasets) -> str:
    """What a system's source reports under its own split, on a dataset that is shown where it can be."""
    table = load_published().query("system == @system and protocol == 'paper'")
    table = table.assign(
        elsewhere=~table["dataset"].isin(datasets), other=table["model"] != model, f1=table["metric"] == "macro_f1"
    )
    if table.empty:
        return "–"
    row = table.sort_values(["elsewhere", "other", "f1"], kind="stable").iloc[0]
    return f"{100 * float(row['value']):.1f} {METRIC[row['metric']]}, {title_of(row['dataset'])}"


def one_voice_table(datasets: list[Dataset]) -> str:
    """Models that know one speaker beside the baselines, on exactly the same clips; "" where there are none."""
    heads = "corpus | system | split | clips | per-speaker models | mfcc | loudness | difference from mfcc"
    lines = [f"| {heads} |", "|---|---|---|" + "---:|" * 5]
    for data in datasets:
        for row in data.one_voice.to_dict("records"):
            cells = [f"{100 * row[name]:.1f}" for name in ("uar", "mfcc", "loudness")]
            gap = f"{100 * row['difference']:+.1f} (p {row['p']:.2g})"
            about = f"| {data.title} | {row['system']} | `{row['protocol']}` | {row['n_utterances']} |"
            lines.append(f"{about} {' | '.join(cells)} | {gap} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def adaptation_table(datasets: list[Dataset]) -> str:
    """Models with nothing and with unlabelled clips known of a new speaker, a column each; "" where there are none."""
    pairs = {(row.system, row.knows_nothing, row.model) for data in datasets for row in data.adapted.itertuples()}
    kinds = ("nothing known", "adapted", "gain")
    heads = [f"{data.title}, {kind}" for data in datasets for kind in kinds]
    lines = [f"| system | model | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    for system, *models in sorted(pairs, key=lambda pair: ([*systems()].index(pair[0]), pair)):
        cells = []
        for data in datasets:
            rows = data.whole[(data.whole["protocol"] == "speaker") & (data.whole["system"] == system)]
            cells += [data.cell(rows[rows["model"] == model]) for model in models]
            cells.append(_gain(data, system, models[1]))
        lines.append(f"| {system} | {models[0]} | {' | '.join(cells)} |")
    return "\n".join(lines) if pairs else ""


def _gain(data, system, model) -> str:
    rows = data.adapted
    rows = rows[(rows["system"] == system) & (rows["model"] == model)] if len(rows) else rows
    return f"{100 * rows.iloc[0]['difference']:+.1f} (p {rows.iloc[0]['p']:.2g})" if len(rows) else "–"


def steps_table(datasets: list[Dataset]) -> str:
    """What each thing that was tried brought on new speakers, a column a dataset, in Markdown; "" where nothing was."""
    steps = [data.steps.set_index(["step", "system", "model", "without"]) for data in datasets if len(data.steps)]
    names = [data.title for data in datasets if len(data.steps)]
    lines = [f"| step | with | without | {' | '.join(names)} |", "|---|---|---|" + "---:|" * len(names)]
    for key in dict.fromkeys(key for table in steps for key in table.index):
        cells = [_difference(table.loc[key]) if key in table.index else "–" for table in steps]
        lines.append(f"| {key[0]} | {key[1]} {key[2]} | {key[3]} | {' | '.join(cells)} |")
    return "\n".join(lines) if steps else ""


def _difference(row) -> str:
    interval = "" if pd.isna(row["low"]) else f" ({100 * row['low']:+.0f} to {100 * row['high']:+.0f})"
    return f"{100 * row['difference']:+.1f}{interval}, p {row['p']:.2g}"


def crossed_table(across: pd.DataFrame) -> str:
    """UAR from corpus to corpus in Markdown, without normalisation and with.

    Parameters
    ----------
    across : 11_across.csv of several corpora
    """
    uar = across.pivot(index=["model", "trained_on"], columns=["tested_on", "normalised"], values="uar")
    corpora = list(dict.fromkeys(across["tested_on"]))
    order = list(dict.fromkeys(across[["model", "trained_on"]].itertuples(index=False, name=None)))
    lines = [f"| model | trained on | {' | '.join(map(title_of, corpora))} |", "|---|---|" + "---:|" * len(corpora)]
    for model, trained_on in order:
        cells = []
        for corpus in corpora:
            pair = [f"{100 * value:.0f}" for value in uar.loc[(model, trained_on), corpus].reindex(["none", "corpus"])]
            text = " → ".join(value for value in pair if value != "nan") or "–"
            cells.append(f"**{text}**" if corpus in trained_on.split("+") and text != "–" else text)
        lines.append(f"| {model.replace('_', ' ')} | {title_of(trained_on)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def crossings(root: Path) -> list[str]:
    """What README says of each set of corpora that models were carried between, as Markdown."""
    text = []
    for path in sorted(root.glob("results/*+*/11_across.csv")):
        across = pd.read_csv(path)
        text += [
            f"From corpus to corpus ({title_of(path.parent.name)}, the emotions that all of them have), a model is trained "
            "on the corpora of its row and tested on the corpus of its column. A cell shows UAR in % twice: without "
            "normalisation → with the features of each corpus normalised by its own mean and deviation. Normalisation needs "
            "recordings of the tested corpus, but no labels. Bold: the tested corpus is also trained on, with other "
            "speakers. Notebook 11 adds intervals and paired tests, and estimates which part of a loss comes from the "
            "recording conditions.",
            crossed_table(across),
        ]
    return text


def conclusions(datasets: list[Dataset]) -> str:
    """What the tables say, in words."""
    lines = []
    for data in datasets:
        lines += [_against_baseline(data), _below_loudness(data), _falls(data), _at_published_settings(data)]
    return "\n".join(f"- {line}" for line in [*filter(None, lines), _beside_published(datasets)] if line)


def _against_baseline(data) -> str:
    table = data.beaten
    if table.empty:
        return ""
    sure = table[table["p_holm"] < ALPHA]
    if table["n_speakers"].max() < metrics.FEWEST_SPEAKERS:
        return f"{data.title}: {table['n_speakers'].max()} speakers are too few to tell which model beats the MFCC baseline."
    better, worse = (sure[sure["difference"] * sign > 0] for sign in (1, -1))
    said = []
    for what, rows in (("better", better.sort_values("difference")[::-1]), ("worse", worse)):
        gaps = f" ({', '.join(_with_gap(row, data) for row in rows.itertuples())})" if len(rows) else ""
        said.append(f"{_count_of(len(rows))} significantly {what}{gaps}")
    return (
        f"{data.title}, new speakers, against the MFCC baseline: of {len(table)} models, {' and '.join(said)}. Differences "
        f"are in points of UAR, with p < {ALPHA} after Holm's correction."
    )


def _below_loudness(data) -> str:
    """Which models do worse on new speakers than what knows only how loud a recording is."""
    rows = data.whole[data.whole["protocol"] == "speaker"]
    loudness = rows.loc[(rows["system"] == "baseline") & (rows["model"] == "loudness"), "uar"].max()
    shown = [tuple(model) for model in shown_models(rows)]
    below = [
        f"{row.system} {row.model} {100 * row.uar:.1f}"
        for row in rows[rows["uar"] < loudness].itertuples()
        if (row.system, row.model) in shown and row.system != "baseline"
    ]
    if len(data.sizes):
        sizes = data.sizes[(data.sizes["protocol"] == "speaker") & (data.sizes["uar"] < data.sizes["loudness"])]
        below += [f"{row.system} at its published size n = {row.n} {100 * row.uar:.1f}" for row in sizes.itertuples()]
    if not below:
        return ""
    return f"{data.title}, new speakers: below the baseline that knows only loudness ({100 * loudness:.1f}): {', '.join(below)}."


def _count_of(n) -> str:
    return {0: "none is", 1: "1 is"}.get(n, f"{n} are")


def _with_gap(row, data) -> str:
    names = {label_of(name): f"{name.system} {name.model}" for name in data.whole.itertuples()}
    return f"{names[row.first]} {100 * row.difference:+.1f}"


def _falls(data) -> str:
    table = data.fall
    if table.empty:
        return ""
    rows = table[(table["protocol"] == "paper") & (table["strictest"] == "speaker") & table["low"].notna()]
    shown = [tuple(model) for model in shown_models(data.whole)]
    if rows.empty:
        return ""
    rows = rows[[(row.system, row.model) in shown for row in rows.itertuples()]]
    sure = rows[(rows["low"] > 0) & (rows["p"] < ALPHA)].sort_values("difference", ascending=False)
    losses = [
        f"{row.system} {row.model} {100 * row.difference:.1f} ({100 * row.low:.0f}–{100 * row.high:.0f})"
        for row in sure.itertuples()
    ]
    return (
        f"{data.title}, from `paper` to new speakers on the same clips: {len(sure)} of {len(rows)} models "
        f"{'loses' if len(sure) == 1 else 'lose'} UAR with p < {ALPHA}, not corrected for the number of models"
        f"{'. Points lost, with 95 % intervals: ' if losses else ''}{', '.join(losses)}."
    )


def _at_published_settings(data) -> str:
    """What became of the spectrogram CNNs' published trainings, and of the two findings."""
    if not (len(data.nets) and len(data.findings) and len(data.faults)):
        return ""
    nets, n_draws = data.nets, len(data.nets["draws"].iloc[0].split())
    # draws have three decimals
    reached = sum(round(row.published, 3) <= max(map(float, row.draws.split())) for row in nets.itertuples())
    cut = [
        f"{row.net} at {row.rate:g} ({row.epochs} of {row.epochs_published})"
        for row in nets[nets["epochs"] < nets["epochs_published"]].itertuples()
    ]
    asked = pd.concat([data.findings, data.faults]).set_index(["claim", "protocol"])

    def gain(claim, protocol="paper"):
        row = asked.loc[(claim, protocol)]
        return f"{100 * row['difference']:+.1f} (p {row['p']:.2g})"

    claim = "batch size 1 beats resizing, 4 layers"
    return (
        f"{data.title}, the spectrogram CNNs' {len(nets)} published trainings at their published settings, {n_draws} draws of "
        f"the split each: at least one draw reaches the published accuracy in {reached}. Not all epochs were made of "
        f"{', '.join(cut)}. Batch size 1 instead of resizing, four layers: {gain(claim)} points of UAR as published, "
        f"{gain(claim, 'utterance')} where validation chooses the epoch, {gain(claim, 'speaker')} for new speakers. Parts of "
        "the artificial data, resized clips, epoch chosen on test, against ten unaltered copies: pitch shift "
        f"{gain('pitch shift of power rows instead of unaltered copies')}, masks at 0 dB "
        f"{gain('masks at 0 dB instead of unaltered copies')}, masks at the floor "
        f"{gain('masks at the floor instead of unaltered copies')}, all together "
        f"{gain('all four changes instead of unaltered copies')}. No p is corrected for the number of claims."
    )


def _beside_published(datasets) -> str:
    tables = [data.published for data in datasets if len(data.published)]
    if not tables:
        return ""
    table = pd.concat(tables)
    table = table[(table["protocol"] == "paper") & table["ours"].notna()]
    if table.empty:
        return ""
    reached = table[table["ours"] >= table["published"].astype(float)]
    same = table["agree"].astype(str).eq("True").sum()
    count = f"{len(reached)} of {len(table)}" if len(reached) else f"None of the {len(table)}"
    return (
        f"{count} scores published for these corpora under `paper` {'is' if len(reached) < 2 else 'are'} reached by "
        "the runs of the table above. "
        f"{'None' if not same else same} of these runs follows exactly the published protocol: classes, tested clips, folds, "
        "network size or epochs differ, as [results/README.md](results/README.md) lists."
    )


def pages(root: Path = REPOSITORY) -> tuple[str, str, list[str]]:
    """Write what belongs between README's marks, and the whole of results/README.md.

    Returns
    -------
    the two texts, and the datasets shown: real corpora, or the demo corpus where there is no other
    """
    datasets = [Dataset(path.parent) for path in score_files(root)]
    datasets = [data for data in datasets if data.name != "demo"] or datasets
    synthetic = any(data.name == "demo" for data in datasets)
    note = " The demo corpus is synthetic: nothing here is a finding about people." if synthetic else ""
    return _of_readme(datasets, note, crossings(root)), _of_results(datasets, note), [data.name for data in datasets]


def about_seeds(datasets: list[Dataset]) -> str:
    """Say whether scores of networks are means over seeds."""
    if not any(len(data.seeds) for data in datasets):
        return "Every network was trained with one seed, so how much its score varies from seed to seed is not known."
    return (
        "A score with ± is the mean over several seeds, ± their standard deviation, and its interval covers speakers and "
        "seeds. Every other network was trained with one seed. Differences between models are those of the first seed."
    )


def _of_readme(datasets, note, crossed) -> str:
    about = " ".join(
        f"{data.title}: {data.extent()} (profile {data.made['profile']}, seed {data.made['seed']})."
        for data in datasets
    )
    text = [
        overview(datasets),
        "UAR (the mean recall of the emotions) in %, with one decision per recording. Round brackets hold the 95 % interval "
        f"over speakers; with fewer than {metrics.FEWEST_SPEAKERS} speakers, square brackets hold the UAR of each speaker "
        "instead. `paper` is the kind of split that the papers used; it [leaks](#the-splits). *New speakers* is the protocol "
        "`speaker`: training never heard the tested voices. The two columns test different clips, so a small difference "
        "between them means nothing; the list below compares the same clips. `opensmile` and `baseline` are acoustic "
        "features with a support vector machine. `ensemble` combines several models. "
        f"{ABOUT_CHOSEN}; [choices.md](notebooks/choices.md) says which. {about_seeds(datasets)} {about}{note}",
        "### What these numbers say",
        conclusions(datasets),
    ]
    if voices := one_voice_table(datasets):
        text += [
            "### One voice at a time",
            "Models of one voice are trained and tested on the same speaker, so they say nothing about new speakers. This "
            "table compares them with the baselines on exactly the same clips:",
            voices,
        ]
    if adapted := adaptation_table(datasets):
        text += [
            "### What a new speaker's other recordings are worth, without labels",
            "*Nothing known*: the model has no other recording of the tested speaker. *Adapted*: it has all clips of that "
            "speaker, but not their labels. These are two different conditions, so no column mixes them, and the column "
            "`leaks` of `scores.csv` says *adapted*. The p of a gain is not corrected for the number of models.",
            adapted,
        ]
    if crossed:
        text += ["### From corpus to corpus", *crossed]
    text.append("All models, splits and costs: [results/README.md](results/README.md).")
    return "\n\n".join(filter(None, text))


def _of_results(datasets, note) -> str:
    text = [
        "# Scores",
        "UAR (the mean recall of the emotions) in %, with one decision per recording, under four splits. The split `paper` "
        "leaks. Round brackets hold the 95 % interval over speakers (Student's t with the jackknife's standard error); with "
        f"fewer than {metrics.FEWEST_SPEAKERS} speakers, square brackets hold the UAR of each speaker instead. {ABOUT_CHOSEN}; "
        "[choices.md](../notebooks/choices.md) says which. *Seeds* is how many times a network was trained; – means that "
        f"nothing is random. {about_seeds(datasets)} Each dataset has a folder: `scores.csv` holds all scores and the leaks "
        "of their splits, `costs.csv` the costs, and `decisions/` the answer of every model for every test clip. "
        "`make rescore DATASET=…` computes scores and tables again from these answers and compares."
        f"{note} `make tables` writes this page.",
    ]
    for data in datasets:
        about = data.extent()
        about = f"{about[0].upper()}{about[1:]}; profile {data.made['profile']}, seed {data.made['seed']}."
        text += [f"## {data.title}", about, dataset_table(data)]
        if len(data.published):
            text += ["Compared with published scores:", _published_table(data.published)]
        if len(data.sizes) or len(data.wavelets):
            text += [
                "At the published size and by the published recipe, trained on an accelerator: *draws* are independent draws of "
                "the published split, *folds* under `speaker` those of new speakers, under `paper` those of ten that were "
                "trained. Accuracy is the mean ± standard deviation over them, UAR that of all their test clips together. "
                "Where fewer than 60 epochs (SigWavNet: 100) are listed, the time was over.",
                _sizes_table(data),
            ]
        if len(data.nets):
            text += _of_nets(data)
    if steps := steps_table(datasets):
        text += [
            "## What each step brought",
            "Differences of UAR in points on new speakers of whom nothing is known, on the same clips, with 95 % intervals over "
            "speakers (below 5 speakers none). The p is not corrected for the number of steps. What unlabelled clips of a "
            "speaker bring is in README; what was tried and given up is in "
            "[choices.md](../notebooks/choices.md#what-was-tried).",
            steps,
        ]
    return "\n\n".join(text) + "\n"


def _published_table(table) -> str:
    """Published figures and ours, with what has to agree for the protocol to be the same, in Markdown."""
    facts = {"classes": "classes", "clips": "clips", "n_folds": "folds", "parameters": "parameters", "epochs": "epochs"}
    heads = [f"{name}, theirs / ours" for name in facts.values()]
    names = ["system", "model", "split", "metric", "published", "ours", *heads, "same protocol"]
    lines = [f"| {' | '.join(names)} |", "|---|---|---|---|---:|---:|" + "---|" * (len(heads) + 1)]
    for row in table[table["ours"].notna()].to_dict("records"):
        pairs = [f"{_count(row[key])} / {_count(row[f'our {key}'])}" for key in facts]
        scores = f"{100 * float(row['published']):.1f} | {100 * row['ours']:.1f}"
        about = f"| {row['system']} | {row['model']} | {row['protocol']} | {METRIC[row['metric']]} | {scores} |"
        lines.append(f"{about} {' | '.join(pairs)} | {'yes' if str(row['agree']) == 'True' else 'no'} |")
    return "\n".join(lines) if len(lines) > 2 else "No model with a published score was run here."


def _sizes_table(data) -> str:
    """Networks at their published sizes beside the published accuracy and the baselines, in Markdown."""
    names = ["system", "n", "split", "draws or folds", "epochs", "parameters", "published accuracy", "accuracy", "UAR"]
    lines = [f"| {' | '.join([*names, *accelerator.BESIDE])} |"]
    lines.append("|---|---:|---|" + "---:|" * (len(names) + len(accelerator.BESIDE) - 3))
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
        cells += [f"{100 * row[name]:.1f}" for name in accelerator.BESIDE]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _of_nets(data) -> list[str]:
    """The study of spectrogram CNNs at its published settings: its trainings, its findings and what carries them, in Markdown."""
    nets, n_draws = data.nets, len(data.nets["draws"].iloc[0].split())
    trained = [
        [
            row.net,
            f"{row.rate:g}",
            f"{row.epochs_published} / {row.epochs}",
            f"{100 * row.published:.1f} ({100 * row.low:.0f}–{100 * row.high:.0f})",
            f"{100 * row.best:.1f} ± {100 * row.spread:.1f}",
            _in_percent(row.draws, ".1f"),
            f"{100 * row.neighbours:.1f}",
            f"{100 * row.last:.1f}",
        ]
        for row in nets.itertuples()
    ]
    heads = [
        "net",
        "learning rate",
        "epochs, theirs / ours",
        "published",
        "best (mean ± sd)",
        "each draw",
        "neighbours",
        "last",
    ]
    text = [
        f"The {len(nets)} published trainings of the spectrogram CNNs at their published settings, on {n_draws} draws of the "
        "published split, trained on an accelerator. Accuracy in %; the interval is that of a net with the published accuracy on "
        "as many test clips. *Best*: the epoch is chosen on test, as published. *Neighbours*: the ten epochs around it. *Last*: "
        "the last epoch.",
        _table(heads, trained),
    ]
    if len(data.splits):
        rows = [
            [
                row.net,
                f"{row.rate:g}",
                f"{row.epochs} / {row.epochs_validated}",
                *[f"{100 * value:.1f}" for value in (row.best, row.neighbours, row.validated, row.new_speakers)],
            ]
            for row in data.splits.itertuples()
        ]
        heads = [
            "net",
            "learning rate",
            "epochs, tested / validated",
            "best",
            "neighbours",
            "validated",
            "new speakers",
        ]
        text += [
            "Four of these nets, trained again with a validation part that chooses the epoch, which leaves a quarter fewer clips for "
            "training (*validated*), and with each speaker left out, too (*new speakers*). Mean accuracy in %:",
            _table(heads, rows),
        ]
    if len(data.findings):
        asked = pd.concat([data.findings, data.faults])
        rows = [
            [
                row.claim,
                f"`{row.protocol}`",
                "–" if pd.isna(row.published) else f"{100 * row.published:+.1f}",
                f"{100 * row.difference:+.1f} ({100 * row.low:+.0f} to {100 * row.high:+.0f})",
                f"{row.p:.2g}",
                _in_percent(row.draws, "+.1f"),
            ]
            for row in asked.itertuples()
        ]
        heads = ["claim", "split", "published", "difference", "p", "each draw or new speaker"]
        text += [
            "The study's findings: differences of UAR in points over all draws, with intervals and tests over speakers (no p is "
            "corrected for the number of rows), and the difference of accuracy in each draw. Under `paper`, test chooses the epoch, as "
            "published; else validation does. The last rows are the resized net with four layers at 0.001 and one part of the "
            "artificial data at a time.",
            _table(heads, rows),
        ]
    return text


def _table(heads, rows) -> str:
    """A table in Markdown; what starts with a digit or a sign in all rows stands to the right."""
    numbers = [all(row[place][:1] in "0123456789+-–" for row in rows) for place in range(len(heads))]
    rules = ["---:" if number else "---" for number in numbers]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _in_percent(numbers, form) -> str:
    return " ".join(f"{100 * float(number):{form}}" for number in numbers.split())


def _count(value) -> str:
    try:
        return "?" if pd.isna(value) else f"{float(value):,.0f}"
    except ValueError:
        return str(value)


def write_readme(root: Path = REPOSITORY) -> list[str]:
    """Put the tables of all real corpora in results/ into README and results/README.md. Returns the datasets shown."""
    between_marks, page, shown = pages(root)
    replace_between(MARKS, root / "README.md", between_marks)
    with atomic_path(root / "results" / "README.md") as temporary:
        temporary.write_text(page, "utf-8")
    return shown


def outdated_pages(root: Path = REPOSITORY) -> list[str]:
    """List the pages whose tables are not those that results/ give, one sentence each."""
    if not (root / "README.md").exists():
        return []
    between_marks, page, _ = pages(root)
    there = (root / "README.md").read_text("utf-8").partition(MARKS[0])[2].partition(MARKS[1])[0]
    results = root / "results" / "README.md"
    outdated = ["README.md"] if there.strip() != between_marks.strip() else []
    outdated += ["results/README.md"] if not results.exists() or results.read_text("utf-8") != page else []
    return [f"{name} does not show what results/ hold: make tables writes it" for name in outdated]
