"""README's tables and results/README.md, written from results/: no number in them is typed."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ser_utils.evaluation import metrics
from ser_utils.names import keeps_all
from ser_utils.workspace import REPOSITORY, atomic_path
from tools.readme.conclusions import about_networks, about_seeds, conclusions, least_p
from tools.readme.datasets import CHOSEN, Dataset, score_files, title_of
from tools.readme.tables import (
    adaptation_table,
    corpora_table,
    crossed_table,
    dataset_table,
    nets_at_published_settings,
    one_voice_table,
    overview,
    published_table,
    sizes_table,
    steps_table,
)

MODELS = Path(__file__).with_name("models.md")  # what each model of the tables is
HOW = " (Student’s t with the jackknife’s standard error)"
MARKS = ("<!-- scores -->", "<!-- /scores -->")
FINDINGS = ("<!-- findings -->", "<!-- /findings -->")  # where README has them: around all that follows its first table
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


def pages(root: Path = REPOSITORY) -> tuple[str, str, list[str]]:
    """Write what belongs between README's marks, on single corpora, and the whole of results/README.md.

    Returns
    -------
    the two texts, and the datasets shown: real corpora, or the demo corpus where there is no other
    """
    datasets = [Dataset(path.parent) for path in score_files(root)]
    datasets = [data for data in datasets if data.name != "demo"] or datasets
    synthetic = any(data.name == "demo" for data in datasets)
    note = " The demo corpus is synthetic: nothing here is a finding about people." if synthetic else ""
    single = [data for data in datasets if "+" not in data.name] or datasets
    return _of_readme(single, note, crossings(root)), _of_results(datasets, note), [data.name for data in datasets]


def crossings(root: Path) -> list[str]:
    """What README says of each set of corpora that models were carried between, as Markdown."""
    text = []
    paths = sorted(root.glob("results/*+*/11_across.csv"))
    for path in (path for path in paths if not keeps_all(path.parent.name)):  # those cross the shared emotions again
        across = pd.read_csv(path)
        text += [
            f"From corpus to corpus ({title_of(path.parent.name)}, the emotions that all of them have), a model is trained "
            "on the corpora of its row and tested on the corpus of its column. These are fewer emotions, so the scores "
            "are higher than those above. A cell shows UAR in % twice: without normalisation → with the features of each corpus "
            "normalised by its own mean and deviation. Normalisation needs recordings of the tested corpus, but no labels. Bold: "
            "other speakers of the tested corpus are in the training data. The deep CNN was trained with one seed, so do not draw "
            "conclusions from a single cell; [choices.md](notebooks/choices.md) says how far chance alone moves one. "
            "Notebook 11 adds intervals and paired tests, and estimates which part of a loss comes from the "
            f"recording conditions (`11_adding.csv`, `11_lost.csv` and `11_told.csv` in `results/{path.parent.name}`). "
            "[results/README.md](results/README.md) shows what all models reach that were trained on these corpora together.",
            crossed_table(across),
        ]
    return text


def _least_p(tables: Iterable[pd.DataFrame]) -> str:
    """Say how small a p of these tables can be."""
    fewest = min(table["n_speakers"].min() for table in tables if len(table))
    return f"With {fewest} speakers, p cannot be below {least_p(fewest):.3f}."


def _brackets(tables: str, how="") -> str:
    """Say what brackets in tables of Markdown mean."""
    few = f" With fewer than {metrics.FEWEST_SPEAKERS} speakers, square brackets hold the UAR of each speaker instead."
    return f"Brackets hold the 95 % interval over speakers{how}.{few if ' [' in tables else ''}"


def _of_readme(datasets, note, crossed) -> str:
    about = " ".join(
        f"{data.title}: {data.extent()} (profile {data.made['profile']}, seed {data.made['seed']})."
        for data in datasets
    )
    shown, adapted = overview(datasets), adaptation_table(datasets)
    text = [
        shown,
        "How to read the table:",
        "\n".join(f"- {line}" for line in _legend(datasets, _brackets(shown + adapted))),
        f"{about}{note}{PARTIAL if ' of ' in about else ''}",
        "### What these numbers say",
        "Differences are in points of UAR. The models are those of the tables in [results/README.md](results/README.md). The "
        "comparison with the MFCC baseline leaves out models that know only loudness or duration; the comparison of `paper` "
        "with new speakers leaves out models that were not run under `paper`.",
        conclusions(datasets),
    ]
    if voices := one_voice_table(datasets):
        text += [
            "### One voice at a time",
            "Models of one voice are trained and tested on the same speaker, so they say nothing about new speakers. This "
            "table compares them with the baselines on exactly the same clips. "
            f"{_least_p(data.one_voice for data in datasets)}",
            voices,
        ]
    if adapted:
        text += [
            "### What a new speaker's other recordings are worth, without labels",
            "*Nothing known*: the model has no other recording of the tested speaker. *Adapted*: it has all clips of that "
            "speaker, but not their labels. These are two different conditions, so no column mixes them, and the column "
            "`leaks` of `scores.csv` says *adapted*. The p of a gain is not corrected for the number of models. "
            f"{_least_p(data.adapted for data in datasets)}",
            adapted,
        ]
    if crossed:
        text += ["### From corpus to corpus", *crossed]
    text.append("All models, splits and costs: [results/README.md](results/README.md).")
    return "\n\n".join(filter(None, text))


PARTIAL = (
    " Scores of an incomplete corpus cannot be compared with those of the complete one; [data/README.md](data/README.md) says "
    "what is missing."
)


ABOUT_SIGWAVNET = (
    "SigWavNet has the channels and GRU layers of its code. We searched its learning rate, because with the rate in its code no "
    "fold learned anything, and planned 100 epochs. Under `paper`, it has ten folds; the column says how many were trained. "
)


def _legend(datasets, brackets) -> list[str]:
    """Say what the columns and marks of README's table mean."""
    return [
        f"Scores are UAR (the mean recall of the emotions) in %, with one decision per recording. {brackets}",
        "`paper` is the kind of split that the papers used; it [leaks](#the-splits). *New speakers* is the protocol `speaker`: "
        "training never heard the tested voices. The two columns test different clips, so a small difference between them "
        "means nothing; the list below compares the same clips.",
        "*Published* is what the authors report, mostly as accuracy and partly on other recordings, so it cannot be compared "
        "with the other columns directly; [results/README.md](results/README.md) lists what differs. Where a cell names no split, "
        "it is `paper`.",
        about_networks(datasets),
        "`opensmile` and `baseline` are acoustic features with a support vector machine. `ensemble` combines several models. "
        "[results/README.md](results/README.md#models) explains every name.",
        f"{ABOUT_CHOSEN}; [choices.md](notebooks/choices.md) says which. Where a paper chose the epoch on test, so do we under "
        "`paper`; these scores have no mark.",
        about_seeds(datasets),
    ]


def _of_results(datasets, note) -> str:
    tables = [dataset_table(data) for data in datasets]
    text = [
        "# Scores",
        "\n".join(
            f"- {line}"
            for line in (
                "Scores are UAR (the mean recall of the emotions) in %, with one decision per recording, under the four "
                "[splits](../README.md#the-splits) `paper` (which leaks), `utterance`, `sentence` and `speaker`.",
                _brackets("".join(tables), HOW),
                f"{ABOUT_CHOSEN}; [choices.md](../notebooks/choices.md) says which.",
                f"*Seeds* is how many seeds a network was trained with; – means that nothing is random. {about_seeds(datasets)}",
                "*Parameters*, *s to train* (all folds together, on two cores) and *ms per utterance* (from file to decision) are "
                "those under the strictest split that the model was run under.",
                "Each dataset has a folder. `scores.csv` holds all scores and the leaks of their splits, `costs.csv` the costs, and "
                "`decisions/` the answer of every model for every test clip. `make rescore DATASET=…` computes scores and tables "
                "again from these answers and compares. The demo corpus ships without `decisions/`; there, the command compares "
                f"checksums.{note} `make tables` writes this page.",
            )
        ),
        "## Models",
        MODELS.read_text("utf-8").strip(),
    ]
    for data, table in zip(datasets, tables, strict=True):
        about = data.extent()
        about = f"{about[0].upper()}{about[1:]}; profile {data.made['profile']}, seed {data.made['seed']}."
        if keeps_all(data.name):
            about += " Some emotions are in one of these corpora alone, so a model can tell them by the recording conditions."
        about += f" {data.caveat}" if data.caveat else ""
        text += [f"## {data.title}", about, table]
        if by_corpus := corpora_table(data):
            text += ["The same models, trained on all of these corpora, on the new speakers of each:", by_corpus]
        if len(data.published) and data.published["ours"].notna().any():
            text += [
                "Compared with published scores (?: not known or not recorded, –: has none):",
                published_table(data.published),
            ]
        if len(data.sizes) or len(data.wavelets):
            text += [
                "These networks have the published sizes and were trained on an accelerator. CNN-n-GRU follows the published recipe, "
                "which gives 50 to 100 epochs; we planned 60. "
                + (ABOUT_SIGWAVNET if len(data.wavelets) else "")
                + "Where *epochs* shows fewer, the time on the accelerator ended first. "
                "*Draws* are repeated random draws of the published split. Under `speaker`, each *fold* tests other speakers. "
                "*Accuracy* is the mean ± standard "
                "deviation over draws or folds, *UAR* is computed over all their test clips together, and *loudness* and *mfcc* are "
                "the UAR of these baselines for the same clips.",
                sizes_table(data),
            ]
        if len(data.nets):
            text += nets_at_published_settings(data)
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


def write_readme(root: Path = REPOSITORY) -> list[str]:
    """Put the tables of all real corpora in results/ into README and results/README.md. Returns the datasets shown."""
    front, page, shown = pages(root)
    for marks, text in _by_marks(front, root / "README.md").items():
        replace_between(marks, root / "README.md", text)
    with atomic_path(root / "results" / "README.md") as temporary:
        temporary.write_text(page, "utf-8")
    return shown


def _between(marks, path) -> str:
    return path.read_text("utf-8").partition(marks[0])[2].partition(marks[1])[0].strip()


def _by_marks(front, path) -> dict[tuple[str, str], str]:
    """What stands between which marks of README: all of it, or its first table apart from the rest."""
    if FINDINGS[0] not in path.read_text("utf-8"):
        return {MARKS: front}
    table, _, findings = front.partition("\n\n")
    return {MARKS: table, FINDINGS: findings}


def outdated_pages(root: Path = REPOSITORY) -> list[str]:
    """List the pages whose tables are not those that results/ give, one sentence each.

    Another root than the repository needs no pages.
    """
    front, results = root / "README.md", root / "results" / "README.md"
    if not front.exists() and root != REPOSITORY:
        return []
    text, page, _ = pages(root)
    missing, outdated = [], []
    if not front.exists():
        missing = ["README.md is missing: git checkout README.md brings it back"]
    elif any(_between(marks, front) != part.strip() for marks, part in _by_marks(text, front).items()):
        outdated = ["README.md"]
    outdated += ["results/README.md"] if not results.exists() or results.read_text("utf-8") != page else []
    return missing + [f"{name} does not show what results/ hold: make tables writes it" for name in outdated]
