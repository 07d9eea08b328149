"""Who is trained on and who is tested: folds by protocol, and an audit of what leaks between them.

A protocol says what is kept apart, `folds` says how. A fold table has one row per fold and utterance (or segment):
`utterance_id, start_ms, fold, role`. Where a fold table departs from the rule, its `attrs["notes"]` say so.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ser_utils.profiles import System, systems

PROTOCOLS = ("paper", "utterance", "sentence", "speaker")
SEGMENT_MS, HOP_MS = 100.0, 20.0  # the prototype paper's segments
# EmoBox's six test groups of RAVDESS actors (Ma et al. 2024)
EMOBOX_RAVDESS = ("01 11 20 21", "04 10 12 14", "08 09 19 23", "03 05 07 24", "02 15 16 18", "06 13 17 22")
VALIDATION_SHARE_OF_SPEAKERS = 0.15

# What train and test may share without breaking the protocol's word. `paper` gives none, so all is listed.
ALLOWED = {"paper": (), "utterance": ("speakers", "sentences"), "sentence": ("speakers",), "speaker": ("sentences",)}
FITTED = {
    "scaler": "scaler statistics on test",
    "encoder": "encoder fitted on test",
    "augmentation": "augmentation before split",
    "selection": "selection on test",
}
ADAPTED = "adapted"  # no broken promise but another condition: unlabelled clips of the tested speakers are known
HEARD = "corpus heard in pre-training"
SHARED = ("overlapping segments", "utterances", "speakers", "sentences", "identical audio")
LEAKS = (*SHARED, *FITTED.values(), ADAPTED, HEARD)


def make_folds(
    table: pd.DataFrame, protocol: str, *, system: str | None = None, folds: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Assign every utterance a role in every fold, so that the protocol's word is kept.

    Parameters
    ----------
    table : utterance table; `utterance_id, speaker, emotion` are needed, `sentence` for protocol `sentence`;
        `corpus, gender, pcm_sha256` are used where present. For the prototype's `paper` protocol one row per segment
        with `start_ms`, or utterances with `duration_s` that are cut here every 20 ms.
    protocol : `paper` (needs `system`), `utterance`, `sentence` or `speaker`
    system : name of a system; `prototype` splits within each speaker
    folds : `holdout` (60/20/20) or `<k>_fold` for utterance and sentence; `leave_one_speaker_out`, `emobox` or
        `<k>_speakers` for speaker; None takes the protocol's usual one, see `default_folds`

    Returns
    -------
    table `utterance_id, start_ms` (ms, NaN for whole utterances), `fold, role`, role one of train, validation, test;
    `attrs` tell protocol, folds, system, seed and notes. The result depends on the rows' content and the seed, not on
    their order. Outside `paper` identical audio never stands on two sides. Where test has to choose the epoch,
    `attrs["fit"]` tells the audit: under `paper` where the source did so, and where no system is named and a fold
    has no validation part.

    Raises
    ------
    ValueError : for an unknown protocol, folds or system, and where the table is too small to split, or to validate on
        for a system that does
    """
    _check_protocol(protocol)
    if protocol == "paper":
        split, name, notes, test_chooses = _paper_folds(table, system, folds, seed)
    else:
        split, name, notes, test_chooses = _folds_kept_apart(table, protocol, system, folds, seed)
    split = split.sort_values(["fold", "utterance_id", "start_ms"], ignore_index=True)
    split = split[["utterance_id", "start_ms", "fold", "role"]]
    split.attrs = {"protocol": protocol, "folds": name, "system": system or "", "seed": seed, "notes": notes}
    if test_chooses:
        split.attrs["fit"] = {"selection": "test"}
    return split


def _folds_kept_apart(table, protocol, system, folds, seed):
    """Folds of every protocol but `paper`: (fold table, name of the folds, notes, whether test chooses the epoch)."""
    declared, utterances = systems().get(system), _prepare(table)
    within_speaker = bool(declared and declared.within_speaker)
    name, notes = folds or default_folds(table, protocol), []
    if protocol == "utterance":
        split, name = _utterance_folds(utterances, name, within_speaker, seed)
    elif protocol == "sentence":
        split, name = _sentence_folds(utterances, name, seed, notes)
    else:
        split, name = _speaker_folds(utterances, name, seed, notes)
    split = _drop_twins(split, utterances, notes)
    split = _drop_untrained(split, utterances, within_speaker, notes)
    n_folds, validated = split["fold"].nunique(), split.loc[split["role"] == "validation", "fold"].nunique()
    needs_validation = bool(system) and not (declared and not declared.needs_validation)
    if validated < n_folds and needs_validation:
        raise ValueError(
            f"Protocol {protocol!r} with folds={name!r} leaves {n_folds - validated} of {n_folds} folds without "
            f"validation, on which {system} chooses its epoch: there are too few recordings of each emotion. "
            f"Add some, or choose another protocol."
        )
    notes += _absences(split, utterances, within_speaker)
    return split, name, notes, validated < n_folds and not system


def default_folds(table: pd.DataFrame, protocol: str) -> str:
    """Name the folds used when none is asked for.

    `holdout` for utterance and sentence. For speaker: EmoBox's for all of RAVDESS, one speaker at a time for up to
    twelve speakers, five groups of speakers beyond.
    """
    if protocol != "speaker":
        return "holdout"
    speakers = _prepare(table).drop_duplicates("speaker_key")
    actors = set(" ".join(EMOBOX_RAVDESS).split())
    if set(speakers["corpus"]) == {"ravdess"} and set(speakers["speaker"]) == actors:
        return "emobox"
    return "leave_one_speaker_out" if len(speakers) <= 12 else "5_speakers"


def _check_protocol(protocol):
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol={protocol!r}. Accepted: {', '.join(PROTOCOLS)}")


def _column(table, name):
    if name not in table:
        return pd.Series("", index=table.index, dtype=object)
    return table[name].astype(object).where(table[name].notna(), "").astype(str)


def _prepare(table):
    """One row per utterance in content order, with the keys that are grouped by."""
    missing = [name for name in ("utterance_id", "speaker", "emotion") if name not in table]
    if missing:
        raise ValueError(f"Folds need utterance_id, speaker, emotion. Missing: {', '.join(missing)}")
    if table.empty:
        raise ValueError("Folds need at least one utterance. Received an empty table.")
    if table["emotion"].nunique() < 2:
        raise ValueError(f"Folds need two emotions at least. Received: {len(table)} rows of {table['emotion'].iloc[0]}")
    rows = pd.DataFrame({name: _column(table, name) for name in ("utterance_id", "speaker", "emotion")})
    if "start_ms" not in table and rows["utterance_id"].duplicated().any():
        twice = rows.loc[rows["utterance_id"].duplicated(), "utterance_id"].iloc[0]
        raise ValueError(f"utterance_id must be unique. Received twice: {twice!r}")
    for name in ("corpus", "gender", "sentence", "pcm_sha256"):
        rows[name] = _column(table, name)
    rows = rows.drop_duplicates("utterance_id").sort_values("utterance_id", ignore_index=True)
    rows["speaker_key"] = rows["corpus"] + "/" + rows["speaker"]  # "03" of two corpora are two people
    rows["audio"] = rows["pcm_sha256"].where(rows["pcm_sha256"] != "", "id " + rows["utterance_id"])
    return rows


def _shuffled(keys, seed):
    """Keys in an order that depends on each key and the seed alone, not on which others are there."""
    return sorted(keys, key=lambda key: hashlib.blake2b(f"{seed}/{key}".encode()).digest())


def _deal(units, strata, shares, seed):
    """Deal units to parts: in every stratum each part gets one if it can, the rest keeps the shares.

    A stratum with fewer units than parts serves unequal parts in their order (train, then test, then
    validation) and equal parts by what they lack. Returns {unit: part}.
    """
    parts, share = list(shares), np.array(list(shares.values()))
    ranked = np.ptp(share) > 0
    given, dealt = np.zeros(len(parts)), {}
    members_of = pd.Series(list(units)).groupby(list(strata), sort=True)
    for _, members in members_of:
        here = np.zeros(len(parts))
        for position, unit in enumerate(_shuffled(members, seed)):
            lack = share * (given.sum() + 1) - given
            if ranked and len(members) < len(parts):
                part = position
            else:
                part = int(np.argmax(np.where(here == 0, lack, -np.inf) if (here == 0).any() else lack))
            here[part] += 1
            given[part] += 1
            dealt[unit] = parts[part]
    return dealt


def _deal_utterances(rows, shares, seed, *, within_speaker=False):
    """Role or part of each utterance: speaker by speaker, stratified by emotion, identical audio together.

    An emotion that a speaker has fewer than four times is dealt from one pool of all such speakers, unless
    every speaker is to be split alone (`within_speaker`); otherwise the two ways agree.
    """
    units = rows.drop_duplicates("audio")
    stratum, dealt_with = units["emotion"] + "\t" + units["speaker_key"], units["speaker_key"]
    if not within_speaker:
        dealt_with = dealt_with.mask(stratum.map(stratum.value_counts()) < 4, "the pool")
    dealt = {}
    for _, group in units.groupby(dealt_with):
        dealt |= _deal(group["audio"], group["emotion"], shares, seed)
    return rows["audio"].map(dealt)


def _table(rows, fold, role):
    return rows[["utterance_id"]].assign(start_ms=np.nan, fold=fold, role=role)


def _paper_folds(table, system, folds, seed):
    """The published split of a system: (fold table, name of the folds, notes, whether test chooses the epoch)."""
    declared = systems().get(system)
    if declared is None:
        accepted = ", ".join(systems())
        raise ValueError(f"Protocol 'paper' needs a system. Accepted: {accepted}. Received: system={system!r}")
    if folds not in (None, declared.folds):
        raise ValueError(f"{system} was published with folds={declared.folds!r}. Received: folds={folds!r}")
    deal = _segment_folds if declared.within_speaker else _published_folds
    notes = [declared.note] if declared.note else []
    return deal(table, declared, seed), declared.folds, notes, declared.epoch_chosen_on_test


def _published_folds(table, system: System, seed):
    """Utterances dealt at random, stratified by emotion where the source did so."""
    rows = _prepare(table)
    stratum = rows["emotion"] if system.stratified else pd.Series("", index=rows.index)
    role = rows["utterance_id"].map(_deal(rows["utterance_id"], stratum, system.split, seed))
    if system.folds == "holdout":
        return _table(rows, 0, role)
    inside, k = rows[role == "train"], _number(system.folds, r"(\d+)_fold", "holdout, <k>_fold")
    dealt = _deal(inside["utterance_id"], inside["emotion"], dict.fromkeys(range(k), 1 / k), seed)
    part = rows["utterance_id"].map(dealt)
    return pd.concat(_table(rows, fold, role.mask(part == fold, "validation")) for fold in range(k))


def _segment_folds(table, system: System, seed):
    """Segments at random within each speaker, as the prototype paper's loaders do."""
    _prepare(table)
    segments = table if "start_ms" in table else segment_rows(table)
    segments = pd.DataFrame(
        {
            "utterance_id": _column(segments, "utterance_id"),
            "start_ms": segments["start_ms"].astype(float),
            "speaker": _column(segments, "corpus") + "/" + _column(segments, "speaker"),
        }
    ).sort_values(["utterance_id", "start_ms"], ignore_index=True)
    role = np.empty(len(segments), dtype=object)
    for speaker, positions in segments.groupby("speaker").indices.items():
        entropy = int.from_bytes(hashlib.blake2b(speaker.encode(), digest_size=8).digest(), "big")
        shuffled = np.random.default_rng([seed, entropy]).permutation(positions)
        n_train = round(system.split["train"] * len(shuffled))
        role[shuffled[:n_train]], role[shuffled[n_train:]] = "train", "test"
    return segments[["utterance_id", "start_ms"]].assign(fold=0, role=role)


def segment_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Repeat each utterance's row once per segment of the prototype paper; an incomplete tail is dropped.

    Parameters
    ----------
    table : with duration_s (s)

    Returns
    -------
    the table's columns and start_ms (ms)

    Raises
    ------
    ValueError : for a table without durations
    """
    if "duration_s" not in table:
        raise ValueError(f"Segments are cut by the column duration_s. Received: {', '.join(map(str, table))}")
    # a microsecond of slack: durations are samples / rate in floating point
    count = np.floor((table["duration_s"].to_numpy() * 1000 - SEGMENT_MS) / HOP_MS + 1e-6).astype(int) + 1
    count = np.maximum(count, 0)
    rows = table.loc[table.index.repeat(count)].reset_index(drop=True)
    first = np.repeat(np.cumsum(count) - count, count)
    return rows.assign(start_ms=(np.arange(len(rows)) - first) * HOP_MS)


def _number(name, pattern, accepted):
    k = re.fullmatch(pattern, name)
    if not k or int(k[1]) < 2:
        raise ValueError(f"Unknown folds. Accepted: {accepted}, k from 2. Received: folds={name!r}")
    return int(k[1])


def _utterance_folds(rows, name, within_speaker, seed):
    if name == "holdout":
        shares = {"train": 0.6, "test": 0.2, "validation": 0.2}
        return _table(rows, 0, _deal_utterances(rows, shares, seed, within_speaker=within_speaker)), name
    k = _number(name, r"(\d+)_fold", "holdout, <k>_fold")
    part = _deal_utterances(rows, dict.fromkeys(range(k), 1 / k), seed, within_speaker=within_speaker)
    split = pd.concat(_in_turn(rows, part, fold, k, seed) for fold in range(k))
    # a class known from validation alone could not be learned: its clips train
    stratum = rows["emotion"] + ("\t" + rows["speaker_key"] if within_speaker else "")
    stratum = split["fold"].astype(str) + "\t" + stratum.reindex(split.index)
    unlearned = ~stratum.isin(stratum[split["role"] == "train"]) & (split["role"] == "validation")
    return split.assign(role=split["role"].mask(unlearned, "train")), name


def _in_turn(rows, part, fold, k, seed):
    """Part `fold` is tested and the next one validates; of two parts, a fifth of the other one does."""
    role = pd.Series("train", index=rows.index).mask(part == fold, "test")
    role = role.mask(part == (fold + 1) % k, "validation") if k > 2 else _carve(rows, role, seed)
    return _table(rows, fold, role)


def _carve(rows, role, seed):
    """Take a fifth of the training utterances for validation, stratified by speaker and emotion."""
    inside = rows[role == "train"]
    carved = _deal_utterances(inside, {"train": 0.8, "validation": 0.2}, seed)
    return carved.reindex(rows.index).fillna(role)


def _sentence_folds(rows, name, seed, notes):
    unknown = int((rows["sentence"] == "").sum())
    text = rows["corpus"] + "/" + rows["sentence"]
    if unknown or text.nunique() < 2:
        why = f"{unknown} of {len(rows)} utterances have no text" if unknown else f"found {text.nunique()}"
        raise ValueError(f"Protocol 'sentence' needs at least two texts, known for every utterance: {why}.")
    # each corpus by itself: of texts of all corpora together, a part may hold all that a corpus has
    corpora = [corpus for _, corpus in rows.groupby("corpus", sort=False)]
    few = [corpus["corpus"].iloc[0] for corpus in corpora if corpus["sentence"].nunique() < 2]
    if few:
        raise ValueError(f"Protocol 'sentence' needs at least two texts of each corpus, found one of {', '.join(few)}.")
    asked = 3 if name == "holdout" else _number(name, r"(\d+)_fold", "holdout, <k>_fold")
    k = min(asked, *(corpus["sentence"].nunique() for corpus in corpora)) if name != "holdout" else asked
    if k < asked and len(corpora) > 1:
        notes.append(f"{name} was asked for, but a corpus has only {k} texts")
    split = pd.concat(_fold_texts(corpus, text, k, name == "holdout", seed, notes) for corpus in corpora)
    return split, name if name == "holdout" else f"{k}_fold"


def _fold_texts(rows, text, k, is_holdout, seed, notes):
    """The folds of one corpus, of which each has its texts in k parts, or in as many as there are texts."""
    text = text[rows.index]
    k = min(k, text.nunique())
    part = text.map(_deal_texts(text, rows["emotion"], k, is_holdout, seed))
    note = "two texts are too few for a third group: validation is grouped by utterance"
    if k == 2 and note not in notes:
        notes.append(note)
    return pd.concat(_in_turn(rows, part, fold, k, seed) for fold in range(1 if is_holdout else k))


def _deal_texts(text, emotion, k, is_holdout, seed):
    """Which of k parts each text goes to, {text: part}."""
    # texts spoken in the most emotions first, so that test and validation see as many classes as can be
    classes = emotion.groupby(text).nunique()
    ordered = sorted(_shuffled(classes.index, seed), key=lambda name: -classes[name])
    part_of, share, load = {}, text.value_counts(normalize=True), np.zeros(k)
    for name in ordered:
        if is_holdout:  # test, then validation, up to a fifth each and at least one text
            full = [load[part] > 0 and load[part] + share[name] / 2 > 0.2 for part in range(k - 1)]
            part = (full + [False]).index(False)
        else:
            part = int(np.argmin(load))
        part_of[name] = part
        load[part] += share[name]
    return part_of


def _speaker_folds(rows, name, seed, notes):
    speakers = rows.drop_duplicates("speaker_key").sort_values("speaker_key").set_index("speaker_key")
    if len(speakers) < 2:
        raise ValueError(f"Protocol 'speaker' needs at least two speakers, found {len(speakers)}.")
    if name == "leave_one_speaker_out":
        groups = [[speaker] for speaker in speakers.index]
    elif name == "emobox":
        groups = _emobox_groups(speakers, notes)
    else:
        groups = _balanced_groups(speakers, name, seed, notes)
        name = f"{len(groups)}_speakers"
    if len(speakers) - max(map(len, groups)) < 3:
        notes.append("fewer than three training speakers: validation is grouped by utterance")
    folds = []
    for fold, test in enumerate(groups):
        if not test:
            continue
        role = pd.Series("train", index=rows.index).mask(rows["speaker_key"].isin(test), "test")
        if validation := _validation_speakers(speakers, groups, fold):
            role = role.mask(rows["speaker_key"].isin(validation), "validation")
        else:
            role = _carve(rows, role, seed)
        folds.append(_table(rows, fold, role))
    return pd.concat(folds), name


def _emobox_groups(speakers, notes):
    if set(speakers["corpus"]) - {"ravdess", ""}:
        raise ValueError("Folds 'emobox' are RAVDESS's. Use leave_one_speaker_out or <k>_speakers.")
    of_actor = {actor: fold for fold, group in enumerate(EMOBOX_RAVDESS) for actor in group.split()}
    fold_of = speakers["speaker"].str.zfill(2).map(of_actor)
    if fold_of.isna().any():
        raise ValueError(f"Folds 'emobox' know actors 01-24. Received: {sorted(speakers['speaker'])}")
    groups = [list(speakers.index[fold_of == fold]) for fold in range(len(EMOBOX_RAVDESS))]
    if sum(map(bool, groups)) < 2:
        raise ValueError("Folds 'emobox' need actors of at least two groups; use leave_one_speaker_out.")
    if not all(groups):
        notes.append(f"{groups.count([])} of EmoBox's six folds have none of the speakers at hand")
    return groups


def _balanced_groups(speakers, name, seed, notes):
    """k groups of speakers, dealt like cards, gender by gender: they differ by at most one of each."""
    k = _number(name, r"(\d+)_speakers", "leave_one_speaker_out, emobox, <k>_speakers")
    if k > len(speakers):
        notes.append(f"{k} groups asked for, {len(speakers)} speakers: one speaker a group")
        k = len(speakers)
    of_gender = speakers.groupby(speakers["corpus"] + "\t" + speakers["gender"]).groups
    cards = [speaker for gender in sorted(of_gender) for speaker in _shuffled(of_gender[gender], seed)]
    return [cards[part::k] for part in range(k)]


def _validation_speakers(speakers, groups, fold):
    """The speakers that follow the test group, genders in turn; none where fewer than three would train."""
    waiting = [speaker for group in groups[fold + 1 :] + groups[:fold] for speaker in group]
    if len(waiting) < 3:
        return []
    taken = []
    for _ in range(max(1, round(VALIDATION_SHARE_OF_SPEAKERS * len(waiting)))):
        genders = list(speakers.loc[taken, "gender"])
        left = [speaker for speaker in waiting if speaker not in taken]
        taken.append(min(left, key=lambda speaker: genders.count(speakers.loc[speaker, "gender"])))
    return taken


def _drop_twins(split, rows, notes):
    """Leave out of training what is the same recording as a clip of another side."""
    split = split.reset_index(drop=True)
    audio = split["utterance_id"].map(rows.set_index("utterance_id")["audio"])
    rank = split["role"].map({"test": 0, "validation": 1, "train": 2})
    twin = rank > rank.groupby([split["fold"], audio]).transform("min")
    if twin.any():
        count = split.loc[twin, "utterance_id"].nunique()
        notes.append(f"{count} clips are left out of training where test or validation has the same audio")
    return split[~twin]


def _drop_untrained(split, rows, within_speaker, notes):
    """Leave out speakers who, taken alone, would have nothing to train or to test on."""
    if not within_speaker:
        return split
    speaker_of = split["utterance_id"].map(rows.set_index("utterance_id")["speaker_key"])
    roles = split.groupby(speaker_of)["role"].agg(set)
    few = roles.index[[not {"train", "test"} <= played for played in roles]]
    split = split[~speaker_of.isin(few)]
    if len(few):
        named = ", ".join(speaker.split("/", 1)[1] for speaker in few)
        notes.append(f"left out, since they have too few clips to train and test on: speaker {named}")
    if split.empty:
        raise ValueError("No speaker has enough clips to train and test on.")
    return split


def _absences(split, rows, within_speaker):
    """One sentence per emotion that some fold does not train on or does not test."""
    label = rows["emotion"] + (" of speaker " + rows["speaker"] if within_speaker else "")
    label_of = split["utterance_id"].map(dict(zip(rows["utterance_id"], label, strict=True)))
    n_folds = split["fold"].nunique()
    notes = []
    for role in ("train", "test"):
        folds_with = split["fold"][split["role"] == role].groupby(label_of).nunique()
        for name in sorted(label_of.unique()):
            if without := n_folds - int(folds_with.get(name, 0)):
                notes.append(f"{without} of {n_folds} folds have no {name} in {role}")
    return notes


def make_all_folds(
    utterances: pd.DataFrame,
    segments: pd.DataFrame | None,
    protocols: Iterable[str],
    *,
    system: str = "prototype",
    seed: int = 0,
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Make a system's folds under each protocol, as far as the corpus allows.

    Parameters
    ----------
    utterances : utterance table
    segments : segment table, None for a system of whole utterances
    protocols, system : as `make_folds` knows them

    Returns
    -------
    {protocol: fold table}, {protocol: why not}, both in the order of `protocols`
    """
    possible, impossible = {}, {}
    for protocol in protocols:
        by_segment = segments is not None and protocol == "paper"
        table = segments.merge(utterances[["utterance_id", "corpus"]]) if by_segment else utterances
        # no speaker can be new to a model of one speaker: `speaker` asks the model over all of them
        within = None if protocol == "speaker" and systems()[system].within_speaker else system
        try:
            possible[protocol] = make_folds(table, protocol, system=within, seed=seed)
        except ValueError as error:
            impossible[protocol] = str(error)
    return possible, impossible


def audit_leakage(
    folds: pd.DataFrame, table: pd.DataFrame, *, fit: dict[str, Any] | None = None, system: str = "", model: str = ""
) -> pd.DataFrame:
    """Count what the test part of each fold shares with what was fitted, tuned or chosen on.

    Parameters
    ----------
    folds : fold table
    table : utterance table
    fit : what was given to `scaler`, `encoder`, `augmentation` (the originals of artificial clips) and `selection` (of
        epoch or settings): a role or roles ("train", "all"), utterance ids, (utterance_id, start_ms) pairs,
        {fold: any of these}, or rows of the fold table; `()` or None where nothing was given. It is to come from the
        code that fits. A key that is missing is unknown, which is not the same as clean. `adaptation` names, in the same
        forms, the clips that a model was given without their labels to get used to a speaker; missing means none.
        `pretraining`: the corpora that weights from elsewhere were trained on, or {fold: corpora}; None where nobody
        says. A system that has no such weights leaves it out.
    system, model : whose audit it is, so that choices of people count too (`declare_choices`); "" for a bare split

    Returns
    -------
    table `fold, kind, count, allowed, checked`, one row per fold and kind of leak: how many test rows, or how many
    utterances, speakers, sentences or recordings stand on both sides; whether the protocol allows that; and whether
    it could be checked. Training and validation count as one side, for both shape the model.

    Raises
    ------
    ValueError : for an unknown key or role in `fit`, and for utterances the table does not know
    """
    fit = {**folds.attrs.get("fit", {}), **(fit or {})}
    if unknown := set(fit) - {*FITTED, "adaptation", "pretraining"}:
        accepted = ", ".join([*FITTED, "adaptation", "pretraining"])
        raise ValueError(f"Unknown key in fit. Accepted: {accepted}. Received: {sorted(unknown)}")
    about = _prepare(table).set_index("utterance_id")
    if strange := set(folds["utterance_id"].astype(str)) - set(about.index):
        raise ValueError(f"Folds of other data: {len(strange)} unknown utterances, e.g. {min(strange)!r}")
    about["text"] = (about["corpus"] + "/" + about["sentence"]).where(about["sentence"] != "")
    folds = folds.assign(utterance_id=folds["utterance_id"].astype(str))
    allowed = ALLOWED.get(folds.attrs.get("protocol"), ())
    untold = {kind for key, kind in FITTED.items() if key not in fit}
    audit, heard = [], fit.get("pretraining", ())
    for fold, rows in folds.groupby("fold"):
        count = _shared(rows, about, folds.attrs.get("segment_ms", SEGMENT_MS))
        for key, kind in FITTED.items():
            count[kind] = _test_rows_given(rows, fit.get(key), fold)
        count[ADAPTED] = _test_rows_given(rows, fit.get("adaptation"), fold)
        corpora = heard.get(fold) if isinstance(heard, dict) else heard
        test = rows.loc[rows["role"] == "test", "utterance_id"]
        count[HEARD] = int(test.map(about["corpus"]).isin(list(corpora or ())).sum())
        unchecked = untold | ({HEARD} if corpora is None else set())
        audit += [(fold, kind, count[kind], kind in allowed, kind not in unchecked) for kind in LEAKS]
    audit = pd.DataFrame(audit, columns=["fold", "kind", "count", "allowed", "checked"])
    if not system:
        return audit
    return declare_choices(audit, folds[folds["role"] == "test"], table, system=system, model=model)


def _shared(rows, about, segment_ms):
    is_test = rows["role"] == "test"
    test, other = set(rows.loc[is_test, "utterance_id"]), set(rows.loc[~is_test, "utterance_id"])
    shared = test & other

    def common(name, left, right):
        return len(set(about.loc[sorted(left), name].dropna()) & set(about.loc[sorted(right), name].dropna()))

    return {
        "overlapping segments": _overlapping(rows[rows["utterance_id"].isin(shared)], segment_ms),
        "utterances": len(shared),
        "speakers": common("speaker_key", test, other),
        "sentences": common("text", test, other),
        "identical audio": common("audio", test - shared, other - shared),  # `shared` is counted above
    }


def _overlapping(rows, segment_ms):
    """How many test rows share time with a row of the same utterance on the other side."""
    count = 0
    for _, segments in rows.groupby("utterance_id"):
        is_test = segments["role"].to_numpy() == "test"
        start = segments["start_ms"].to_numpy(float)
        test, other = start[is_test], np.sort(start[~is_test])
        if np.isnan(start).any():  # a whole utterance overlaps all of its segments
            count += len(test)
            continue
        after = np.searchsorted(other, test - segment_ms, side="right")
        before = np.searchsorted(other, test + segment_ms, side="left")
        count += int((before > after).sum())
    return count


def _test_rows_given(rows, given, fold):
    """How many test rows are among `given`, in any of the forms `audit_leakage` takes."""
    if isinstance(given, dict):
        given = given.get(fold, ())
    if isinstance(given, pd.DataFrame):
        given = given[given["fold"] == fold] if "fold" in given else given
        whole = given["start_ms"].isna().all() if "start_ms" in given else True
        given = given["utterance_id"] if whole else given[["utterance_id", "start_ms"]].itertuples(False, None)
    given = {given} if isinstance(given, str) else set(() if given is None else given)
    test = rows[rows["role"] == "test"]
    if given <= {"train", "validation", "test", "all"}:
        return len(test) if given & {"test", "all"} else 0
    pairs = zip(test["utterance_id"], test["start_ms"], strict=True)
    return sum(pair in given or pair[0] in given for pair in pairs)


def declare_choices(
    audit: pd.DataFrame, tested: pd.DataFrame, table: pd.DataFrame, *, system: str, model: str
) -> pd.DataFrame:
    """Add to an audit what no training code can record: settings that people chose by looking at scores of test clips.

    A system's toml names the models and the corpora of these clips (`chosen_on_test`). Where they are tested, all of them
    count as leaked. `audit_leakage` calls this; an audit made before a choice was known of can be given it later.

    Parameters
    ----------
    audit : as `audit_leakage` returns it
    tested : what was tested in the same folds; `utterance_id, fold` are used
    table : utterance table; `utterance_id, corpus` are used

    Returns
    -------
    the audit, with the counts of "selection on test" raised; a second time changes nothing
    """
    corpus_of = dict(zip(_column(table, "utterance_id"), _column(table, "corpus"), strict=True))
    corpus = tested["utterance_id"].astype(str).map(corpus_of)
    looked_at = corpus.isin(systems()[system].looked_at(model)).groupby(tested["fold"]).sum()
    count = audit["fold"].map(looked_at).where(audit["kind"] == FITTED["selection"], 0).fillna(0)
    return audit.assign(count=np.maximum(audit["count"], count).astype(audit["count"].dtype))


def leaks_beyond(audit: pd.DataFrame, protocol: str) -> str:
    """Tell what the audit found beyond what the protocol allows, as the scores' `leaks` column has it.

    Parameters
    ----------
    audit : as `audit_leakage` returns it

    Returns
    -------
    the kinds joined by "; ", and behind "unknown: " those that could not be checked. Empty when everything was checked
    and the protocol keeps its word.
    """
    _check_protocol(protocol)
    leaking = set(audit.loc[audit["count"] > 0, "kind"]) - set(ALLOWED[protocol])
    unknown = set(audit.loc[~audit["checked"], "kind"]) - leaking
    parts = [kind for kind in LEAKS if kind in leaking]
    if unknown:
        parts.append("unknown: " + ", ".join(kind for kind in LEAKS if kind in unknown))
    return "; ".join(parts)
