"""What in a corpus, or in several joined, could fool a model or its reader."""

import numpy as np
import pandas as pd

from ser_utils.corpora import emotions_in_order
from ser_utils.corpora.loading import NOT_SHARED, CorpusReport, common_rate
from ser_utils.corpora.recordings import describe_remarks

MINUTE_SHARE = 0.001  # of a file's samples at full scale: less is a peak, more is clipping
QUIET = 0.001  # root mean square, 60 dB below full scale
GIVES_AWAY = 0.2  # accuracy from the exact length alone, above that of always saying the commonest emotion


def find_regularities(files: pd.DataFrame) -> list[str]:
    """Find what in these files could take the place of the voice.

    Parameters
    ----------
    files : as in `CorpusReport.files`, the usable ones

    Returns
    -------
    sentences; none if nothing stands out
    """
    if files.empty:
        return []
    said = []
    lengths = (files["duration_s"] * files["sample_rate_hz"]).round().astype(int)
    told, guessed = _accuracy_by_length(lengths, files["emotion"])
    if told > guessed + GIVES_AWAY:
        said.append(
            f"The exact length of a clip gives away its emotion in {told:.0%} of cases (always the commonest: "
            f"{guessed:.0%})."
        )
    for emotion, group in lengths.groupby(files["emotion"]):
        share = (group == group.mode().iloc[0]).mean()
        if len(group) >= 5 and share > 0.5:
            said.append(f"{share:.0%} of the clips of {emotion} are {group.mode().iloc[0]} samples long.")
    copies = files.loc[files["pcm_sha256"].duplicated(keep=False), "pcm_sha256"].value_counts()
    if len(copies) and copies.max() > 2:
        said.append(f"One recording is there {copies.max()} times under different names.")
    if quiet := int((files["rms"] < QUIET).sum()):
        said.append(f"{quiet} of {len(files)} files are very quiet (below -60 dB of full scale).")
    if clipped := int((files["clipped"] > MINUTE_SHARE).sum()):
        said.append(f"{clipped} of {len(files)} files are clipped (over 0.1 % of their samples at full scale).")
    for fact, unit in (("sample_rate_hz", " Hz"), ("channels", " channel(s)")):
        counts = files[fact].value_counts()
        if len(counts) > 1:
            listed = ", ".join(f"{n} with {value}{unit}" for value, n in counts.items())
            said.append(f"Files differ: {listed}.")
    long = files["duration_s"] > 10 * files["duration_s"].median()
    if long.any():
        example = files["path"][long].iloc[0]
        said.append(f"{long.sum()} files are more than ten times as long as usual, e.g. {example}.")
    return said


def describe_harmonisation(report: CorpusReport) -> pd.DataFrame:
    """Tell what was done to each of several corpora to make them one.

    Returns
    -------
    table indexed by corpus: `language`, `files` that could be read, `used`, `left out: emotion` (as not all corpora have
    it), `speakers`, `texts`, `rates` as recorded and the rate they are `brought to` (kHz), and the medians of level (dB of
    full scale, as recorded) and length (s)
    """
    files, table, rows = _files_of_corpora(report), report.table, {}
    for corpus, group in files.groupby("corpus", sort=False):
        used = table[table["corpus"] == corpus]
        rates = group["sample_rate_hz"].value_counts().index
        level_db = 20 * np.log10(group.loc[group["utterance_id"].isin(used["utterance_id"]), "rms"].median())
        rows[corpus] = {
            "language": ", ".join(sorted(set(used["language"]) - {""})) or "unknown",
            "files": len(group),
            "used": len(used),
            "left out: emotion": int((~group["emotion"].isin(table["emotion"])).sum()),
            "speakers": used["speaker"].nunique(),
            "texts": used.loc[used["sentence"] != "", "sentence"].nunique(),
            "rates": ", ".join(f"{rate / 1000:g}" for rate in rates),
            "brought to": common_rate(table) / 1000,
            "median level": level_db,
            "median length": used["duration_s"].median(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("corpus")


def count_labels(report: CorpusReport) -> pd.DataFrame:
    """Count the readable files of each corpus and emotion, those that are left out too: a table corpus × emotion."""
    files = _files_of_corpora(report)
    return pd.crosstab(files["corpus"], files["emotion"])[emotions_in_order(files["emotion"])]


def _files_of_corpora(report):
    """The files that are used, and those left out for their emotion alone, with their corpus."""
    names = [corpus.name for corpus in report.corpora]
    corpus = report.files["path"].str.split("/").str[0] if len(names) > 1 else names[0]
    for_another_reason = report.problems.loc[~report.problems["reason"].str.endswith(NOT_SHARED), "path"]
    files = report.files.assign(corpus=corpus)
    return files[~files["path"].isin(for_another_reason)]


def find_traps(report: CorpusReport) -> list[str]:
    """Find what in a corpus, or several, could fool a model or its reader; in sentences."""
    table, files = report.table, report.files
    said = []
    counts = table["emotion"].value_counts()
    if counts.max() >= 2 * counts.min():
        said.append(
            f"Classes differ in size: {counts.max()} of {counts.idxmax()}, {counts.min()} of {counts.idxmin()}. "
            f"Accuracy flatters whoever prefers the large ones; UAR does not."
        )
    for corpus, utterances in table.groupby("corpus"):
        texts = utterances.loc[utterances["sentence"] != "", "sentence"]
        if 0 < texts.nunique() <= 3:
            said.append(f"{corpus} has only {texts.nunique()} text(s): nothing is known of other words.")
        n_emotions = utterances.groupby("sentence")["emotion"].transform("nunique")
        n_told = int(((n_emotions == 1) & (utterances["sentence"] != "")).sum())
        if n_told > len(utterances) / 10:
            said.append(
                f"In {corpus}, {n_told} of {len(utterances)} utterances have a text that goes with one emotion alone."
            )
        if (n := utterances["speaker"].nunique()) < 5:
            said.append(f"{corpus} has {n} speakers here: a speaker-independent score rests on {n} voices.")
        if lacking := sorted(set(counts.index) - set(utterances["emotion"])):
            said.append(f"{corpus} has no {', '.join(lacking)}: there, the room tells what the emotion is not.")
    said += find_loudness_by_corpus(files.merge(table[["utterance_id", "corpus"]], on="utterance_id"))
    left_out = files["path"].isin(report.problems["path"])
    said += describe_remarks(files)
    return said + find_regularities(files[~left_out & files["utterance_id"].isin(table["utterance_id"])])


def find_loudness_by_corpus(files: pd.DataFrame) -> list[str]:
    """Find whether loudness tells corpora apart, in one sentence; files : as in `CorpusReport.files`, with `corpus`."""
    decibel = 20 * np.log10(files[files["reason"] == ""].groupby("corpus")["rms"].median())
    if decibel.max() - decibel.min() <= 6:
        return []
    listed = ", ".join(f"{name} {level:.0f} dB" for name, level in decibel.items())
    return [f"Loudness tells the corpora apart (median level against full scale: {listed})."]


def _accuracy_by_length(lengths, emotions):
    """Share of clips whose emotion is the commonest among the other clips of exactly their length, and the share of
    the commonest emotion, which is also the guess for a clip whose length no other has."""
    guess = emotions.mode().iloc[0]
    counts = pd.crosstab(lengths, emotions)
    others = counts.loc[lengths].to_numpy(copy=True)
    place = counts.columns.get_indexer(emotions)
    others[np.arange(len(place)), place] -= 1  # the clip itself has no say
    told = np.where(others.sum(1) > 0, others.argmax(1), counts.columns.get_loc(guess))
    return float((told == place).mean()), float((emotions == guess).mean())
