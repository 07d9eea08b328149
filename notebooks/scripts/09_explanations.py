# ---
# jupyter:
#   graph:
#     reads: ["02", "05", "07", "08"]
#     settings: [explanation, prototype_classifier, feature_network, sigwavnet, speech_transformer]
#     files: [weights]
# ---

# %% [markdown]
# # 09 · What do the networks listen to?
#
# **Question.** Which moments and frequencies of a recording decide the answer of a network? Can we see and hear them?
#
# **Reads** the utterance table and the networks of 02 (prototypes), 05 (MFCC, log-mel), 07 (waveform) and, where
# `make weights` fetched them, 08 (HuBERT, wav2vec 2.0). **Writes** the attribution maps, which notebook 10 puts to the test, and
# figures. The multi-corpus study shows such heat maps for MFCC, log-mel and HuBERT; the prototype sounds go back to the
# prototype paper.
#
# **Run time** on two cores, profile `quick`: two minutes on the demo corpus, besides the notebooks it reads.

# %%
import librosa
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Audio, display

from ser_utils.corpora.loading import common_rate
from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS
from ser_utils.explanation import attribution
from ser_utils.explanation import figures as explanations
from ser_utils.explanation.faithfulness import SHARE, rank_correlation
from ser_utils.features.audio import load_audio
from ser_utils.features.spectral import log_mel, split_segments
from ser_utils.features.store import load_store
from ser_utils.figures import style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems import explained
from ser_utils.systems.prototype import checks as prototypes
from ser_utils.systems.prototype.analysis import prototype_sounds
from ser_utils.workspace import Workspace

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("explanation", profile, dataset)
utterances = workspace.load_table("utterances")
paths = utterances.set_index("utterance_id")["path"]
rate = common_rate(utterances)
style.set_style()
settings_table("explanation")

# %% [markdown]
# ## The networks
#
# We explain recordings on which the network was not trained and which it recognises correctly: from the first two folds of 05,
# so from more than one model and speaker, and from the first fold of 02 and 07. The networks of 05 and 07 never heard these
# speakers.

# %%
networks = explained.open_networks(workspace, utterances, chosen)
pd.DataFrame(
    [
        {
            "network": network.name,
            "fold": network.fold,
            "clips explained": len(network.clips),
            "weights": network.subject.model.count_params(),
        }
        for network in networks
    ]
)

# %% [markdown]
# ## "This 100 ms sounds like that prototype"
#
# A prototype classifier explains its answer by similarity. The figure shows one held-out recording that the classifier of all
# speakers gets right: how much each moment supports the emotion, and the three moments that support it most, each beside its
# most similar prototype.

# %%
shared = explained.open_prototypes(workspace, utterances, 0)["all"]
(by_likeness,) = explained.named(networks, explained.PROTOTYPES)
clip = by_likeness.clips[0]
segments = load_store(workspace.folder("features") / "segments").of(clip.utterance)
similarity = prototypes.similarities(shared.classifier, shared.coder.embed(segments))
moments = prototypes.sounds_like(similarity, shared.classifier.fc_weights, clip.label)
three = prototypes.spread_out(moments, most=3, apart=round(SEGMENT_MS / HOP_MS))
spoken_for, _ = prototypes.classes_spoken_for(shared.classifier.fc_weights)
three["emotion"] = [shared.classes[spoken_for[place]] for place in three["prototype"]]

# %%
decoded = shared.coder.decode(shared.classifier.prototypes[three["prototype"]])
signal, _ = load_audio(paths[clip.utterance], rate)
figure = explanations.moments_beside_prototypes(
    log_mel(signal, rate, n_mels=64, n_fft=1024, hop_length=256),
    moments.sort_values("segment")["support"].to_numpy(),
    three,
    decoded,
    segments[three["segment"]],
    rate,
    hop_s=HOP_MS / 1000,
    segment_s=SEGMENT_MS / 1000,
    title=f"{clip.utterance}: {shared.classes[clip.label]}, because …",
)
caption = f"One held-out recording ({shared.classes[clip.label]}) explained by the prototypes it sounds like."
style.save_figure(workspace, figure, "09_sounds_like", caption)
plt.show()

# %% [markdown]
# You hear each moment four times in a row, then a pause, then its prototype four times.

# %%
heard = split_segments(signal, rate, segment_ms=SEGMENT_MS, hop_ms=HOP_MS)
sounds = prototype_sounds(decoded, rate, length=round(rate * SEGMENT_MS / 1000), seed=seed)
for row, sound in zip(three.itertuples(), sounds, strict=True):
    print(f"{row.segment * HOP_MS:.0f} ms sounds like prototype {row.prototype} ({row.emotion})")
    display(prototypes.one_then_other(heard[row.segment], sound, rate))

# %% [markdown]
# ## Maps
#
# The other networks do not explain themselves, so we need attribution methods. Each method gives every point of the input a value.
# The gradient of the score says where a small change would matter; gradient × input, SmoothGrad and integrated gradients
# build on it; occlusion hides one patch after another; Grad-CAM weighs the channels of a late layer; attention is what the
# network itself weighs. Two more maps know nothing of the network: `energy`, how far each point is from silence, and `random`.
#
# Some methods need a value that stands for **absence**. Here it is silence: the lowest level of training frames, or zero for a
# waveform. Embeddings have no value for silence, so their training mean is used.

# %%
maps, seconds = attribution.all_maps(networks, seed=seed)
attribution.save_maps(workspace.folder("explanations"), networks, maps)
of_network = {network.name: (network, of_clips) for network, of_clips in zip(networks, maps, strict=True)}

# %%
for name, short in (("CNN, log-mel", "log_mel"), ("CNN, MFCC", "mfcc")):
    network, of_clips = of_network[name]
    figure = explanations.maps_over(network.clips[0].x[0], {m: v[0] for m, v in of_clips[0].items() if m != "random"})
    caption = f"One held-out recording as the {name} network sees it, and what each method says decides."
    style.save_figure(workspace, figure, f"09_maps_{short}", caption)
    plt.show()

# %% [markdown]
# Such maps look convincing. Notebook 10 tests whether they are true of the network.
#
# ## Emotion by emotion: log-mel and MFCC
#
# The maps are means over the recordings of an emotion: red speaks for the emotion, blue against it. An MFCC is a sum over mel
# bands, so the gradients of the MFCC network can be carried back to the bands (third row). Both networks can then be compared
# on the same axes.

# %%
signed = explained.signed_maps(workspace, networks, chosen["mean_clips"])
axis_of = {"log-mel": "mel band", "MFCC": "coefficient, energy on top", "MFCC, as bands": "mel band"}


def by_class(summary):
    """Feature type -> emotion -> `summary` of its maps."""
    return {
        kind: {
            emotion: summary(list(rows.loc[rows["emotion"] == emotion, "map"]))
            for emotion in style.in_order(rows["emotion"])
        }
        for kind, rows in signed.groupby("kind", sort=False)
    }


# %%
figure = explanations.class_means(by_class(attribution.mean_map), row_labels=axis_of)
caption = "Integrated gradients of log-mel and MFCC networks, mean over recordings of an emotion, speakers never heard."
style.save_figure(workspace, figure, "09_class_means", caption)
plt.show()

# %%
figure = explanations.class_means(by_class(lambda maps: maps[0]), row_labels=axis_of)
style.save_figure(workspace, figure, "09_class_clips", "The same for a single recording per emotion.")
plt.show()

# %%
profiles = by_class(lambda maps: np.mean([np.abs(values.sum(axis=0)) for values in maps], axis=0))
figure = explanations.bands_by_class(profiles, labels=axis_of)
style.save_figure(workspace, figure, "09_bands", "Where along the features each emotion's attribution lies.")
plt.show()

# %%
wide = signed.pivot(index="utterance", columns="kind", values="map").dropna()
alike = [rank_correlation(*pair) for pair in wide[["log-mel", "MFCC, as bands"]].to_numpy()]
mean_alike = np.mean(alike or [np.nan])
print(f"rank correlation of both networks' maps on bands, {len(alike)} recordings: {mean_alike:.2f}")

# %% [markdown]
# Maps of single recordings are busier than their means. If the correlation is near 0, the two networks give the same answer
# for different reasons: a map describes a network, not the voice.
#
# ## Heard: the part the network relied on, and the rest
#
# We cut the fifth of all points with the largest integrated gradient out of the recording, with its phases, so that both parts
# add up to the recording. The network then hears each part alone. If the attribution is faithful, the chosen fifth alone should
# give the same answer.

# %%
network, of_clips = of_network["CNN, log-mel"]
of_frames = settings("feature_network", profile)
grid = {key: of_frames[key] for key in ("n_fft", "hop_length")}
framing = grid | {"n_mels": of_frames["n_mels"]}


def parts_of(clip, values):
    """The recording as the network of 05 heard it, the fifth with most of a map, and the rest."""
    signal, rate = explained.heard_by_feature_network(workspace, paths[clip.utterance])
    part, rest = attribution.part_and_rest(signal, rate, values[0], share=SHARE, **grid)
    return {"whole": signal, "part": part, "rest": rest}, rate


# %%
rows = []
for clip, of_clip in zip(network.clips, of_clips, strict=True):
    for method in ("integrated_gradients", "occlusion", "energy", "random"):
        sounds, frame_rate = parts_of(clip, of_clip[method])
        answers = {
            what: explained.probability_of(network, sound, frame_rate, clip.label, **framing)
            for what, sound in sounds.items()
        }
        rows.append({"fifth chosen by": method} | answers)
pd.DataFrame(rows).groupby("fifth chosen by", sort=False).mean().round(3)

# %% [markdown]
# The table shows the mean probability of the class, for the whole recording, for the chosen fifth alone (`part`) and for the
# other four fifths (`rest`). The larger `part` and the smaller `rest`, the more the network relied on what was chosen.

# %%
sounds, frame_rate = parts_of(network.clips[0], of_clips[0]["integrated_gradients"])
powers = {what: librosa.feature.melspectrogram(y=sound, sr=frame_rate, **grid) for what, sound in sounds.items()}
levels = {what: librosa.power_to_db(power, ref=powers["whole"].max()) for what, power in powers.items()}
figure = explanations.part_and_rest_levels(levels, frame_rate, hop_length=grid["hop_length"])
caption = "A recording, the fifth of it that integrated gradients point at, and the rest."
style.save_figure(workspace, figure, "09_part_and_rest", caption)
plt.show()
for what, sound in sounds.items():
    print(what)
    display(Audio(sound, rate=frame_rate))

# %% [markdown]
# ## Over time: HuBERT, wav2vec 2.0 and the waveform
#
# Embeddings have no frequency axis, so their maps show only when the head listens. Grad-CAM weighs the channels of the head's
# last convolution; the other methods are summed over the dimensions.

# %%
heads = {
    network.name: (network, of_clips)
    for network, of_clips in zip(networks, maps, strict=True)
    if network.name.endswith("head")
}
for name, (network, of_clips) in heads.items():
    clip = network.clips[0]
    signal, frame_rate = load_audio(paths[clip.utterance], 16000)
    curves = {m: of_clips[0][m][0].sum(axis=1) for m in ("grad_cam", "integrated_gradients", "occlusion")}
    picture = log_mel(signal, frame_rate, n_mels=64, n_fft=1024, hop_length=256)
    figure = explanations.over_time(picture, {name: curves}, seconds=len(signal) / frame_rate, title=clip.utterance)
    style.save_figure(workspace, figure, f"09_{name.split('_')[0]}_over_time", f"What the {name} listens to over time.")
    plt.show()
if not heads:
    print("HuBERT and wav2vec 2.0 need their published weights: make weights, then make 08 09. Nothing is shown here.")

# %% [markdown]
# The next figure shows the network that reads the waveform.

# %%
network, of_clips = of_network[explained.WAVEFORM]
clip = network.clips[0]
length_s = clip.x.shape[1] / settings("sigwavnet", profile)["sample_rate_hz"]
curves = {
    method: attribution.over_windows(of_clips[0][method][0], round(20 * length_s))
    for method in ("integrated_gradients", "occlusion", "smooth_grad")
}
figure = explanations.over_time(clip.x[0], {network.name: curves}, seconds=length_s, title=clip.utterance)
style.save_figure(workspace, figure, "09_waveform", "What the waveform network listens to, in windows of 50 ms.")
plt.show()

# %% [markdown]
# ## How long it takes
#
# The table shows seconds for one recording, median over the recordings. Spectrogram and MFCC networks should stay below 2 s on
# two cores. The waveform network runs a recurrence over thousands of steps and takes longer.

# %%
timing = seconds.groupby(["method", "model"], sort=False)[["s", "cpu_s"]].median()
timing["s"].unstack().round(2)

# %% [markdown]
# ## Saved

# %%
workspace.save_table(seconds, "explanation_seconds")
workspace.record("09", utterances, chosen)
n_clips = sum(len(network.clips) for network in networks)
print(f"maps of {n_clips} recordings for {len(of_network)} networks; notebook 10 puts them to the test")

# %% [markdown]
# **What we learned.** We can see and hear what a method marks as important, and different methods mark different parts. Notebook
# 10 asks which of them can be trusted.
