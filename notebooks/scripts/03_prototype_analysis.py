# ---
# jupyter:
#   graph:
#     reads: ["02"]
#     settings: [prototype, prototype_classifier]
# ---

# %% [markdown]
# # 03 · Prototypes seen and heard
#
# **Question.** Which 100 ms of a voice does a network take for typical of an emotion? What do they sound like? Does their
# pitch or their spectrum explain the choice?
#
# **Reads** the classifiers and autoencoders that 02 lists. **Writes** `prototypes/<dataset>/`: per speaker, a folder with a
# picture and a sound of each selected prototype, a tone per emotion and PDF reports; reports on female and on male speakers,
# where the corpus names them; and `index.csv`, a table of all prototypes.
#
# **Reproduces** the prototype paper's selection, scores and analysis: its pages of spectrograms, pitch, bands and notes.
# Prototypes come from the models of protocol `utterance`. **Run time** on two cores, profile `quick`: a minute on the demo
# corpus, three on EmoDB or RAVDESS.

# %%
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Audio, display

from ser_utils.corpora.loading import common_rate
from ser_utils.features.audio import load_audio, save_audio
from ser_utils.features.spectral import log_mel_segments
from ser_utils.figures import style
from ser_utils.profiles import settings
from ser_utils.systems.prototype import analysis, reports
from ser_utils.systems.prototype import figures as prototypes
from ser_utils.systems.prototype.classifier import SCORING_METHODS
from ser_utils.systems.prototype.data import open_data
from ser_utils.workspace import Workspace, atomic_path, write_csv

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
scoring = "softmax"  # positive, min_max or softmax

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("prototype_classifier", profile, dataset)
style.set_style()
utterances = workspace.load_table("utterances")
rate = common_rate(utterances)  # of the segments, as 00 made them
{name: chosen[name] for name in ("top", "threshold", "distance")} | {"scoring": scoring}

# %% [markdown]
# ## The models whose prototypes are shown
#
# We show the models of protocol `utterance`, because nothing in them was chosen on the recordings they were tested on.

# %%
models = workspace.load_table("prototype_classifiers", made_by="02")
models = models[(models["protocol"] == "utterance") & (models["model"] != "all")].reset_index(drop=True)
neighbours = workspace.load_table("prototype_neighbours", made_by="02").query("protocol == 'utterance'")
voices = reports.open_voices(workspace, models, neighbours, scoring)
models[["model", "classes", "low_db", "high_db"]]

# %% [markdown]
# ## Three ways to score, two ways to select
#
# How strongly a prototype stands for an emotion can be computed from its weights $w$ in three ways: the share of the positive
# weights, the share after subtracting the smallest weight, or $\mathrm{softmax}(w)$. A selection takes either the top N of
# each emotion, or all prototypes above a threshold.

# %%
voice = voices[0]
limits = dict(top=chosen["top"], threshold=chosen["threshold"])
analysis.compare_scorings(voice.fc_weights, voice.classes, SCORING_METHODS, **limits).round(2)

# %% [markdown]
# The column "in the top" shows which share of the softmax's top N another method also selects. Compare it with the share for
# the same number of prototypes drawn at random. The rest of the notebook uses the method in the parameter `scoring`.

# %%
above = {v.speaker: v.table[v.table["score"] >= chosen["threshold"]].groupby("emotion").size() for v in voices}
pd.DataFrame(above).T.fillna(0).astype(int)

# %% [markdown]
# The table shows how many prototypes of each emotion reach the threshold. The figure shows the lowest of them, which a
# selection by threshold includes beyond the best:

# %%
figure = reports.threshold_page(voice, chosen["threshold"], chosen["top"], rate)
caption = f"Prototypes of speaker {voice.speaker} that just reach a score of {chosen['threshold']:g} %."
style.save_figure(workspace, figure, "03_threshold", caption)
plt.show()

# %% [markdown]
# ## Prototypes that differ
#
# The prototypes with the highest scores may all be nearly the same sound. So we add a second selection to the published one,
# and show it first. It goes through the prototypes by falling score. It skips a prototype if its spectrogram correlates by .9
# or more with one already selected, or if its nearest recording is already represented. If too few are left, recordings may
# repeat.

# %%
index, log_mels = reports.choose_shown(voices, chosen["top"])
sounds = analysis.prototype_sounds(log_mels, rate, length=rate // 10, seed=seed)
heard = log_mel_segments(sounds, rate)
analysis.compare_selections(index, heard, chosen["top"]).round(1)

# %% [markdown]
# A twin is here a sound whose log-mel correlates by more than .95 with another of the same voice and emotion. In the published
# sounds 14 % (EmoDB), 15 % (RAVDESS) and 42 % (EmoMatchSpanishDB) have one.

# %%
own = (index["speaker"] == voice.speaker).to_numpy()
distinct = index["distinct"].to_numpy()
published = (index["published_rank"] <= chosen["top"]).to_numpy()
rows = prototypes.by_emotion(log_mels[own & distinct], index[own & distinct])
figure = prototypes.spectrogram_rows(rows, rate)
caption = f"Prototypes of speaker {voice.speaker} that differ, most typical first."
style.save_figure(workspace, figure, "03_prototypes", caption)
plt.show()

# %%
by_score = index.assign(rank=index["published_rank"])[own & published]
figure = prototypes.spectrogram_rows(prototypes.by_emotion(log_mels[own & published], by_score), rate)
caption = f"Prototypes of speaker {voice.speaker} with the highest scores, as published."
style.save_figure(workspace, figure, "03_prototypes_published", caption)
plt.show()

# %% [markdown]
# ## Pitch
#
# Non-negative least squares and Griffin–Lim turn mel spectrograms into sound, with the settings of the forward transform.
# pYIN estimates the pitch, but 100 ms give it few frames. So it searches only the range of the speaker's recordings. A result
# half an octave or more outside the pitch of the nearest recording counts as an octave error, not as a pitch. Prototypes
# without a pitch are left out of means, not counted as −1. The detection rate says how often a pitch was found.

# %%
paths = utterances.set_index("utterance_id")["path"]
spoken = {name: load_audio(paths[name], rate)[0] for name in sorted(set(index["nearest_utterance_id"]))}
index, tracks, ranges_hz = reports.measure(index, log_mels, sounds, spoken, rate)
ranges_hz.round()

# %%
by_emotion = analysis.pitch_by_emotion(index[published])
by_emotion.round(2)

# %%
figure = prototypes.pitch(index[published])
caption = "Pitch of prototypes; above, the share of prototypes in which a pitch is found."
style.save_figure(workspace, figure, "03_pitch", caption)
plt.show()

# %% [markdown]
# Pitch is the cue that one would expect first: high for anger and happiness, low for sadness. If the prototypes of two
# emotions have the same pitch, pitch cannot be what separates these emotions.
#
# ## Listening
#
# You hear the most typical 100 ms of each emotion five times in a row. Then follows a tone at the mean pitch of the emotion, if
# at least half of its prototypes have a pitch.

# %%
for place in index[own & (index["rank"] == 1)].index:
    row = index.loc[place]
    heard_pitch = f"pitch {row['f0_hz']:.0f} Hz, {row['note']}" if row["note"] else "no pitch found"
    print(f"{row['emotion']}: {row['score']:.0f} %, {heard_pitch}")
    display(Audio(np.tile(sounds[place], 5), rate=rate))
tones = by_emotion[by_emotion["detected"] >= 0.5]
for row in tones[tones["speaker"] == voice.speaker].itertuples():
    print(f"{row.emotion}: {row.f0_mean_hz:.0f} Hz, {row.note}")
    display(Audio(analysis.make_tone(row.f0_mean_hz, rate), rate=rate))

# %% [markdown]
# ## Do prototypes resemble the segments of their class?
#
# For every mel band, we take the mean and the spread of the level over time and over the prototypes of a class, and compare
# them with those of the training segments of that class. The table shows the `correlation` of the two means over bands, their
# `difference`, and the share of the spread that the prototypes keep.

# %%
data = open_data(workspace, settings("prototype", profile, dataset), speakers=" ".join(v.speaker for v in voices))
index["class_recordings"] = reports.class_recordings(data, index)
profiles = reports.profile_classes(data, index[published], log_mels[published], rate)
reports.agreement_table(profiles).round(2)

# %%
for name, profile in profiles.items():
    figure = prototypes.class_profiles(profile.prototypes, profile.segments, profile.agreement)
    caption = f"Level by band of the prototypes and of the training segments of each class, {name}."
    style.save_figure(workspace, figure, f"03_profiles_{name}", caption)
    plt.show()

# %% [markdown]
# ## One box per mel band
#
# The boxes show the levels of each band over time and prototypes: quartiles, whiskers, mean (dot), median (line) and mode
# (cross). There is one figure per speaker and, where the corpus names them, for women and men, over the full range and from 0
# to 2 kHz, where voices have most of their power.

# %%
views = {"full": np.inf, "low": analysis.LOW_BAND_HZ}
for name, profile in profiles.items():
    for view, fmax in views.items():
        figure = prototypes.band_boxes(profile.prototypes, fmax=fmax, heading=f"{name}, {view} range")
        caption = f"Level of each mel band in the prototypes of each class, {name}, {view} range."
        style.save_figure(workspace, figure, f"03_bands_{name}_{view}", caption)
        plt.show()

# %% [markdown]
# ## Strongest bands (ours)
#
# Which frequencies have the most power in the prototypes of an emotion? The figure shows the ten strongest bands of each
# prototype, for women and men, where the corpus names them. This analysis is not in the paper.

# %%
long = analysis.long_bands(index[published], analysis.strongest_bands(log_mels[published], rate))
groups = {name: long["gender"] == name for name in ("female", "male") if (long["gender"] == name).any()}
figure = prototypes.strongest_boxes(long, groups or {"all": long["gender"].notna()}, fmax=analysis.LOW_BAND_HZ)
style.save_figure(workspace, figure, "03_strongest_bands", "Strongest bands of prototypes up to 2 kHz.")
plt.show()

# %%
analysis.frequent_bands(index[own & published], analysis.strongest_bands(log_mels[own & published], rate))

# %% [markdown]
# The table lists the bands that are most often among the ten strongest of a prototype, and the number of these prototypes.
#
# ## Reports and a folder per speaker
#
# The folder of a speaker contains PDF reports on classes, pitch, bands and notes, with the pictures and sounds. Each run
# replaces the whole folder, so no prototypes of an earlier run remain.

# %%
for stale in set(workspace.prototypes.glob("speaker_*")):
    if stale.name.removeprefix("speaker_") not in set(index["speaker"]):
        shutil.rmtree(stale)
voice_of = {voice.speaker: voice for voice in voices}
for speaker in index["speaker"].unique():
    mine = (index["speaker"] == speaker).to_numpy()
    with atomic_path(workspace.prototypes / f"speaker_{speaker}") as folder:
        reports.write_speaker(folder, index[mine], log_mels[mine], sounds[mine], rate)
        for row in tones[tones["speaker"] == speaker].itertuples():
            save_audio(folder / f"{row.emotion}_tone.wav", analysis.make_tone(row.f0_mean_hz, rate), rate)
        told, profile = [tracks[place] for place in np.flatnonzero(mine)], profiles[f"speaker_{speaker}"]
        pages = reports.speaker_pages(index[mine], log_mels[mine], told, profile, rate, chosen["top"])
        pages["threshold"] = [reports.threshold_page(voice_of[speaker], chosen["threshold"], chosen["top"], rate)]
        for name, figures in pages.items():
            prototypes.save_report(folder / f"{name}.pdf", figures, f"{name} of speaker {speaker}, {dataset}")

# %%
for name in (name for name in profiles if not name.startswith("speaker_")):
    theirs = published & (index["gender"] == name).to_numpy()
    figures = reports.group_pages(index[theirs], log_mels[theirs], profiles[name], rate)
    path = workspace.prototypes / f"group_{name}.pdf"
    print(prototypes.save_report(path, figures, f"{name} voices of {dataset}").name)

# %% [markdown]
# ## Saved

# %%
write_csv(workspace.prototypes / "index.csv", index)
workspace.record("03", utterances, chosen | {"scoring": scoring})
print(f"{len(index)} prototypes of {index['speaker'].nunique()} speakers in {workspace.prototypes}")
index[["speaker", "emotion", "rank", "score", "f0_hz", "strongest_bands_hz", "level_db"]].head()
