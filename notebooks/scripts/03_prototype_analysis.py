# ---
# jupyter:
#   graph:
#     reads: ["02"]
#     settings: [prototype_classifier]
# ---

# %% [markdown]
# # 03 · Prototypes seen and heard
#
# **Question.** Which 100 ms of a voice does a network take for typical of an emotion, what do they sound like, and
# does their pitch or their spectrum say why?
#
# **Reads** the classifiers and autoencoders that 02 lists. **Writes** `prototypes/<dataset>/speaker_<id>/` with a picture
# and a sound of each selected prototype, a tone per emotion, four PDF reports, and `index.csv` over all.
#
# **Reproduces** the prototype paper's selection, scores and analysis reports. Prototypes come from the models of
# protocol `utterance`. **Run time** on two cores, profile `quick`: a minute and a half on the demo corpus.

# %%
import shutil

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Audio, display

from ser_utils.corpora.loading import common_rate
from ser_utils.features.audio import save_audio
from ser_utils.figures import style
from ser_utils.profiles import settings
from ser_utils.systems.prototype import analysis
from ser_utils.systems.prototype import figures as prototypes
from ser_utils.systems.prototype.classifier import SCORING_METHODS, prototype_scores
from ser_utils.systems.prototype.segments import Scale
from ser_utils.systems.prototype.training import Coder
from ser_utils.workspace import Workspace, atomic_path, sealed

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
scoring = "softmax"  # positive, min_max or softmax

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("prototype_classifier", profile)
style.set_style()
utterances = workspace.load_table("utterances")
rate = common_rate(utterances)  # of the segments, as 00 made them
gender_of = utterances.drop_duplicates("speaker").set_index("speaker")["gender"]
{name: chosen[name] for name in ("top", "threshold", "distance")} | {"scoring": scoring}

# %% [markdown]
# ## The models whose prototypes are shown
#
# Those of protocol `utterance`: nothing in them was chosen on the recordings they were tested on.

# %%
models = workspace.load_table("prototype_classifiers", made_by="02")
models = models[(models["protocol"] == "utterance") & (models["model"] != "all")].reset_index(drop=True)
neighbours = workspace.load_table("prototype_neighbours", made_by="02").query("protocol == 'utterance'")
models[["model", "classes", "low_db", "high_db"]]


# %%
def open_model(row):
    """The classifier and the coder that one line of `models` lists."""
    classifier = keras.saving.load_model(workspace.build / row.path)
    path = workspace.build / row.coder_path
    autoencoder, facts = keras.saving.load_model(path), sealed(path)
    scale = Scale(row.low_db, row.high_db)
    return classifier, Coder(autoencoder, scale, pd.DataFrame(facts["history"]), facts["seconds"], path)


opened = {row.model: open_model(row) for row in models.itertuples()}
classes = {row.model: row.classes.split() for row in models.itertuples()}

# %% [markdown]
# ## Three ways to score, two ways to select
#
# How much a prototype speaks for an emotion can be read from its weights $w$ in three ways: the share of the positive
# ones, the share after subtracting the smallest, or $\mathrm{softmax}(w)$. A selection takes either the top N of each
# emotion or all above a threshold.

# %%
name = models["model"].iloc[0]
limits = dict(top=chosen["top"], threshold=chosen["threshold"])
analysis.compare_scorings(opened[name][0].fc_weights, classes[name], SCORING_METHODS, **limits).round(2)

# %% [markdown]
# A rank means something else under each: the last two columns set the share of the softmax's top that a method picks
# as well beside what as many prototypes drawn blindly would share. Where the mean score is near 100 the first of them
# differ in tenths of a percent, or not at all. What follows shows the top of each emotion by `scoring`.


# %%
def selected(model):
    """The strongest prototypes of a speaker: their table and log-mel spectrograms in dB."""
    classifier, coder = opened[model]
    scores = prototype_scores(classifier.fc_weights.round(2), scoring)
    table = analysis.select_prototypes(scores, classes[model], top=chosen["top"])
    table = style.sort_by_emotion(table).reset_index(drop=True)
    table = table.merge(
        neighbours[neighbours["model"] == model].drop(columns="fold"), on="prototype", how="left"
    )
    speaker = model.removeprefix("speaker_")
    table.insert(0, "speaker", speaker)
    return table.assign(gender=gender_of[speaker]), coder.decode(classifier.prototypes[table["prototype"]])


parts = [selected(model) for model in opened]
index = pd.concat([table for table, _ in parts], ignore_index=True)
log_mels = np.concatenate([log_mel for _, log_mel in parts])
index.groupby(["speaker", "emotion"]).size().unstack(fill_value=0)

# %% [markdown]
# An emotion with fewer than asked for has no more prototypes that speak for it most.
#
# ## To sound, and what is measured on it
#
# Mel to linear by non-negative least squares, then Griffin–Lim with the forward settings. Pitch by pYIN within 50 to
# 300 Hz, in frames that hold three periods of the lowest voice; an answer at an end of that range is none. Where none is
# found it is left out of means, not counted as −1. The nearest training segment says which real sound a prototype is
# closest to.

# %%
length = rate // 10
sounds = analysis.prototype_sounds(log_mels, rate, length=length, seed=seed)
pitch = [analysis.estimate_pitch(sound, rate) for sound in sounds]
index["f0_hz"], index["voiced_share"] = zip(*pitch, strict=True)
index["note"] = index["f0_hz"].map(analysis.nearest_note)
bands_hz = analysis.strongest_bands(log_mels, rate)
index["strongest_bands_hz"] = [" ".join(f"{hz:.0f}" for hz in row) for row in bands_hz]
index["duration_ms"] = 1000 * sounds.shape[1] / rate
index["level_db"] = 10 * np.log10((sounds**2).mean(axis=1) + 1e-12)

# %%
analysis.pitch_by_emotion(index).round(2)

# %%
figure = prototypes.pitch(index)
style.save_figure(
    workspace, figure, "03_pitch", "Pitch of prototypes; above, the share in which pYIN finds one."
)
plt.show()

# %% [markdown]
# Pitch is the cue one would expect first: anger and happiness high, sadness low. Where dots of different emotions lie
# on one height, the network must have used something else.
#
# ## Seen

# %%
own = index["speaker"] == index["speaker"].iloc[0]
figure = prototypes.grid(log_mels[own], index[own], rate)
style.save_figure(
    workspace,
    figure,
    "03_prototypes",
    f"Prototypes of speaker {index['speaker'].iloc[0]}, most typical first.",
)
plt.show()

# %% [markdown]
# ## Heard
#
# The most typical 100 ms of each emotion, five times in a row, and a tone at the mean pitch of the emotion.

# %%
for place in index[own & (index["rank"] == 1)].index:
    row = index.loc[place]
    print(f"{row['emotion']}: {row['score']:.0f} %, pitch {row['f0_hz']:.0f} Hz {row['note']}")
    display(Audio(np.tile(sounds[place], 5), rate=rate))
tones = analysis.pitch_by_emotion(index).dropna(subset="f0_mean_hz")
for row in tones[tones["speaker"] == index["speaker"].iloc[0]].itertuples():
    print(f"{row.emotion}: {row.f0_mean_hz:.0f} Hz, {row.note}")
    display(Audio(analysis.make_tone(row.f0_mean_hz, rate), rate=rate))

# %% [markdown]
# ## Strongest frequency bands
#
# The five bands of each prototype with most power, for women and men and for each speaker, over the full range and
# from 0 to 2 kHz, where voices carry most of it.

# %%
long = analysis.long_bands(index, bands_hz)
groups = {name: long["gender"] == name for name in ("female", "male") if (long["gender"] == name).any()}
by_speaker = {f"speaker {one}": long["speaker"] == one for one in sorted(long["speaker"].unique())}
for kind, masks in (("groups", groups), ("speakers", by_speaker)):
    for view, fmax in (("full", None), ("low", analysis.LOW_BAND_HZ)):
        if masks:
            figure = prototypes.band_boxes(long, masks, fmax=fmax)
            style.save_figure(
                workspace, figure, f"03_bands_{kind}_{view}", f"Strongest bands, {kind}, {view} range."
            )
            plt.show()

# %%
figure = prototypes.class_profiles(log_mels[own], index[own], rate)
style.save_figure(
    workspace, figure, "03_profiles", "Level over time, and by frequency, of one speaker's prototypes."
)
plt.show()

# %% [markdown]
# ## Four reports and a folder per speaker
#
# Pitch, classes, strongest bands and notes as PDF, beside the pictures and sounds. A folder is replaced whole, so
# prototypes of an earlier run do not stay among the new ones.


# %%
def reports(speaker, mine, mels, bands):
    """The pages of a speaker's four reports, by name."""
    facts = mine[["emotion", "rank", "score", "f0_hz", "voiced_share", "note"]]
    by_emotion = analysis.pitch_by_emotion(mine).drop(columns="speaker")
    lists = mine[["emotion", "rank", "strongest_bands_hz"]]
    own_bands = analysis.long_bands(mine, bands)
    everything = {f"speaker {speaker}": own_bands["emotion"].notna()}
    heading = f"Speaker {speaker} of {dataset}, protocol utterance"
    return {
        "pitch": [prototypes.text_page(f"{heading}: pitch", by_emotion, facts), prototypes.pitch(mine)],
        "classes": [prototypes.class_profiles(mels, mine, rate), prototypes.grid(mels, mine, rate)],
        "bands": [
            prototypes.text_page(f"{heading}: strongest bands (Hz)", lists),
            *(
                prototypes.band_boxes(own_bands, everything, fmax=fmax)
                for fmax in (None, analysis.LOW_BAND_HZ)
            ),
            *(prototypes.prototype_bands(mine, bands, fmax=fmax) for fmax in (None, analysis.LOW_BAND_HZ)),
        ],
        "notes": [prototypes.notes(mine), prototypes.text_page(f"{heading}: nearest notes", facts)],
    }


# %%
def write_speaker(speaker):
    """Pictures, sounds, tones and reports of one speaker, as one folder."""
    places = index.index[index["speaker"] == speaker]
    mine = index.loc[places].reset_index(drop=True)
    with atomic_path(workspace.prototypes / f"speaker_{speaker}") as folder:
        folder.mkdir()
        for place, row in zip(places, mine.itertuples(), strict=True):
            figure = prototypes.picture(log_mels[place], rate, f"{row.emotion} {row.rank}: {row.score:.0f} %")
            figure.savefig(folder / f"{row.emotion}_{row.rank}.png", dpi=80, metadata={"Software": None})
            plt.close(figure)
            save_audio(folder / f"{row.emotion}_{row.rank}.wav", sounds[place], rate)
        for row in tones[tones["speaker"] == speaker].itertuples():
            save_audio(folder / f"{row.emotion}_tone.wav", analysis.make_tone(row.f0_mean_hz, rate), rate)
        for name, pages in reports(speaker, mine, log_mels[places], bands_hz[places]).items():
            prototypes.save_report(folder / f"{name}.pdf", pages, f"{name} of speaker {speaker}")


for stale in set(workspace.prototypes.glob("speaker_*")):
    if stale.name.removeprefix("speaker_") not in set(index["speaker"]):
        shutil.rmtree(stale)
for speaker in index["speaker"].unique():
    write_speaker(speaker)

# %% [markdown]
# ## Saved

# %%
index.to_csv(workspace.prototypes / "index.csv", index=False, float_format="%.4f", lineterminator="\n")
workspace.record("03", utterances, chosen | {"scoring": scoring})
print(f"{len(index)} prototypes of {index['speaker'].nunique()} speakers in {workspace.prototypes}")
index[["speaker", "emotion", "rank", "score", "f0_hz", "strongest_bands_hz", "level_db"]].head()
