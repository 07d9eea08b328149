# ---
# jupyter:
#   graph:
#     reads: []
#     settings: [prototype]
# ---

# %% [markdown]
# # 00 · From recordings to log-mel segments
#
# **Question.** What is in this corpus, which part of it does a network see, and how much of the voice survives?
#
# **Reads** the corpus. **Writes** the utterance table (`utterances`), one loudness per utterance (`loudness`) and the
# log-mel segments (`features/segments`) that notebooks 01–03 learn from.
#
# **Reproduces** the preprocessing of the prototype paper: segments of 100 ms every 20 ms, with 128 mel bands.
# **Run time** on two cores: half a minute for the demo corpus, about three minutes for all of RAVDESS.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Audio, display

from ser_utils.corpora.check import count_labels, describe_harmonisation, find_traps
from ser_utils.corpora.demo import make_demo_corpus
from ser_utils.corpora.loading import common_rate, inspect_corpus
from ser_utils.evaluation.splits import HOP_MS, SEGMENT_MS
from ser_utils.features import spectral as features
from ser_utils.features.audio import load_audio, reduce_noise, save_audio
from ser_utils.features.store import build_store
from ser_utils.figures import speech, style
from ser_utils.profiles import settings, settings_table
from ser_utils.systems.prototype.segments import clearest_segments, segment_table
from ser_utils.workspace import Workspace

# %% tags=["parameters"]
dataset = "demo"  # a corpus, several joined by "+", or a path to your own table
profile = "quick"  # smoke, quick or paper
seed = 0
root = ""  # where everything is written; empty: the repository
denoise = False  # reduce stationary noise before the features

# %%
workspace = Workspace(dataset, profile, seed, root)
chosen = settings("prototype", profile, dataset)
style.set_style()
settings_table("prototype")

# %% [markdown]
# ## The corpus
#
# Every file is opened once. A file that cannot be used is left out and listed with the reason. The sums below cover every
# file, and every row of a table.

# %%
if dataset == "demo":
    make_demo_corpus(workspace.data_dir / "demo", seed=0)
report = inspect_corpus(dataset, workspace.data_dir)
utterances = report.table
print(report.announcement or "complete", report.account, sep="\n")
report.problems

# %% [markdown]
# Profile `smoke` keeps only a few clips of two speakers of each corpus. It proves that everything runs, nothing more.

# %%
if chosen["clips_per_class"]:
    voices = utterances[["corpus", "speaker"]].drop_duplicates().sort_values(["corpus", "speaker"])
    kept = utterances.merge(voices.groupby("corpus").head(chosen["kept_speakers"]))
    kept = kept.groupby(["speaker", "emotion"]).head(chosen["clips_per_class"])
    utterances = kept.sort_values("utterance_id", ignore_index=True)
rate = common_rate(utterances)  # if the rates differ, all are resampled to this one
print(f"{len(utterances)} utterances of {utterances['speaker'].nunique()} speakers are used, at {rate} Hz")

# %% [markdown]
# How many utterances of each emotion does each speaker have? A model of one speaker cannot learn an emotion that this
# speaker never acts.

# %%
partial = f" Partial corpus: {report.announcement}." if report.announcement else ""
figure = speech.counts(utterances)
style.save_figure(workspace, figure, "00_counts", f"Utterances per speaker and emotion.{partial}")
plt.show()

# %%
figure = speech.overview(utterances)
style.save_figure(workspace, figure, "00_overview", f"Durations, emotions and sampling rates by corpus.{partial}")
plt.show()

# %%
columns = {"utterance_id": "count", "duration_s": ["min", "median", "max"], "sample_rate_hz": ["min", "max"]}
utterances.groupby(["corpus", "emotion"]).agg(columns).round(2)

# %% [markdown]
# ## What could mislead a model
#
# If length or loudness alone tells emotions apart, a network may score well without using the voice. Notebook 11 measures
# this: both are baselines there.

# %%
figure = speech.by_emotion(utterances, "duration_s", "duration (s)")
style.save_figure(workspace, figure, "00_durations", f"Duration of the utterances by emotion.{partial}")
plt.show()


# %%
def level(signal, rate):
    return 10 * np.log10(np.mean(signal**2, keepdims=True)[None])


levels = build_store(workspace.folder("features") / "loudness", utterances, level, key="rms dB", title="loudness")
loudness = levels.table.assign(rms_db=levels.array[:, 0])
figure = speech.by_emotion(loudness, "rms_db", "RMS level (dB re full scale)")
style.save_figure(workspace, figure, "00_loudness", f"RMS level of the utterances by emotion.{partial}")
plt.show()

# %%
for trap in find_traps(report):
    print("•", trap)

# %% [markdown]
# ## One recording of each emotion
#
# All examples are from one speaker, and as far as possible with the same text, so that little but the emotion differs.

# %%
spoken = utterances[utterances["speaker"] == utterances["speaker"].iloc[0]]
spoken = spoken.assign(said_with=spoken.groupby("sentence")["emotion"].transform("nunique"))
first = spoken.sort_values(["said_with", "sentence"], ascending=[False, True]).drop_duplicates("emotion")
examples = {row.emotion: load_audio(row.path, rate) for row in first.itertuples()}
print(*(f"{row.emotion}: text {row.sentence or 'unknown'}" for row in first.itertuples()), sep=", ")
figure = speech.one_per_emotion(examples)
style.save_figure(workspace, figure, "00_examples", "One utterance per emotion of one speaker: waveform, spectrogram.")
plt.show()

# %%
for emotion in style.in_order(examples):
    print(emotion)
    display(Audio(examples[emotion][0], rate=examples[emotion][1]))

# %% [markdown]
# ## From samples to log-mel
#
# A **frame** $x_m[n] = x[n + mH]\,w[n]$ is cut every $H$ samples and tapered by $w$. Its Fourier transform
# $X_m[k] = \sum_n x_m[n] e^{-2\pi i k n / N}$ gives the **power** $|X_m[k]|^2$. Triangular **mel filters** $M_{jk}$, narrow
# at low and wide at high frequencies like those of the ear, sum it into 128 bands. The **level in dB** is relative to the
# loudest point of the segment: $L_{jm} = 10 \log_{10} \sum_k M_{jk} |X_m[k]|^2 - \max$, and at least −80 dB.

# %%
signal, _ = examples["anger"] if "anger" in examples else next(iter(examples.values()))
segments = features.split_segments(signal, rate, segment_ms=SEGMENT_MS, hop_ms=HOP_MS)
loudest = segments[np.argmax((segments**2).sum(axis=1))]
figure = speech.power_and_mel(loudest, rate, features.MEL)
style.save_figure(workspace, figure, "00_steps", "From a 100 ms segment to its log-mel spectrogram, step by step.")
plt.show()

# %% [markdown]
# The red taper fades each frame in and out. Without it, the abrupt edges of the frame would add power at all frequencies.
# The horizontal stripes in the last panel are the harmonics of the voice.
#
# ## Noise reduction
#
# `noisereduce` estimates a noise spectrum and attenuates what is not above it. It is off by default, because the prototype
# paper did not use it, and because it may remove breath together with the noise.

# %%
cleaned = reduce_noise(signal, rate)
figure = speech.before_and_after(signal, cleaned, rate, ("recorded", "noise reduced"))
style.save_figure(workspace, figure, "00_noise_reduction", "One utterance before and after noise reduction.")
plt.show()
display(Audio(signal, rate=rate), Audio(cleaned, rate=rate))

# %% [markdown]
# ## Segments of the whole corpus
#
# Segments of 100 ms begin every 20 ms, so neighbours share 80 ms. A random split puts the same sound into training and
# test; notebook 02 measures the effect. The segments are one array on disk, so a corpus may be larger than the memory.


# %%
def log_mels(signal, rate):
    return features.log_mel_segments(features.split_segments(signal, rate, segment_ms=SEGMENT_MS, hop_ms=HOP_MS), rate)


key = f"log-mel {SEGMENT_MS} ms every {HOP_MS} ms, {features.MEL}"
options = {"key": key, "sample_rate_hz": rate, "denoise": denoise, "title": "segments"}
store = build_store(workspace.folder("features") / "segments", utterances, log_mels, **options)

# %%
by_segment = segment_table(store)
assert len(by_segment) == len(store.array) and np.isfinite(store.array[:: len(store.array) // 500 + 1]).all()
print(f"{len(by_segment)} segments of {store.array.shape[1]} mel bands × {store.array.shape[2]} frames at {rate} Hz")
by_segment.groupby("emotion").size().rename("segments").to_frame().T

# %% [markdown]
# Some segments contain no voice, only silence. The paper gives them the emotion of their clip, like all other segments,
# and so do we. A flat spectrogram (standard deviation below 3 dB) is counted as digital silence.

# %%
sample = store.array[:: max(1, len(store.array) // 5000)]
print(f"{100 * (sample.std(axis=(1, 2)) < 3).mean():.1f} % of the segments are digital silence")

# %%
shown = style.sort_by_emotion(clearest_segments(store, by_segment))
figure = speech.log_mel_grid(store.array[shown["row"]], shown["emotion"].tolist(), rate)
style.save_figure(workspace, figure, "00_segments", "One 100 ms log-mel segment per emotion, as the networks see it.")
plt.show()

# %% [markdown]
# ## Several corpora joined
#
# Joined corpora differ in more than their language. All are resampled to one rate, the lowest of their usual ones. Emotions
# that only some corpora have are left out, because a model could recognise them by the corpus (`LABELS=all` keeps them).
# Levels and spectra stay as recorded. Notebook 11 shows what that costs from corpus to corpus.

# %%
several = utterances["corpus"].nunique() > 1
described = describe_harmonisation(report) if several else "One corpus: nothing to harmonise."
described

# %%
if several:
    corpus_of = by_segment["utterance_id"].map(utterances.set_index("utterance_id")["corpus"]).to_numpy()
    spectra = {name: store.array[np.flatnonzero(corpus_of == name)[::20]].mean(axis=(0, 2)) for name in set(corpus_of)}
    spectra = pd.DataFrame(spectra, index=features.band_frequencies(rate))[sorted(spectra)]
    figure = speech.harmonisation(count_labels(report), loudness, spectra)
    caption = (
        "Labels, levels and mean spectra of the 100 ms segments of each corpus, each against its own loudest point."
    )
    style.save_figure(workspace, figure, "00_harmonisation", f"{caption}{partial}")
    plt.show()

# %% [markdown]
# ## How much of the voice survives mel → audio?
#
# A log-mel keeps neither the phase nor fine frequency detail. To get sound back, non-negative least squares estimates the
# spectrum and Griffin–Lim the phase. The printed number is the mean level difference between the original log-mel and the
# log-mel of the resynthesis, at points with sound (above −60 dB).

# %%
clip = signal[: 2 * rate]
log_mel = features.log_mel_segments(clip[None], rate)[0]
resynthesis = features.mel_to_audio(log_mel, rate, length=len(clip), seed=seed)
returned = features.log_mel_segments(resynthesis[None], rate)[0]
heard = log_mel > -60
error_db = float(np.abs(returned - log_mel)[heard].mean())
print(f"mean level error {error_db:.1f} dB over {100 * heard.mean():.0f} % of the points")

# %%
as_loud = resynthesis * np.abs(clip).max() / np.abs(resynthesis).max()
figure = speech.before_and_after(clip, as_loud, rate, ("recorded", "from log-mel"))
caption = f"An utterance and its resynthesis from 128 mel bands; mean level error {error_db:.1f} dB."
style.save_figure(workspace, figure, "00_resynthesis", caption)
plt.show()
display(Audio(clip, rate=rate), Audio(resynthesis, rate=rate))
save_audio(workspace.folder("sounds") / "00_resynthesis.wav", resynthesis, rate)

# %% [markdown]
# Listen: are voice and words still recognisable? The lost phase is heard as a metallic ring.
#
# ## Saved

# %%
workspace.save_table(utterances, "utterances")
workspace.save_table(loudness[["utterance_id", "rms_db"]], "loudness")
workspace.record("00", utterances, chosen)
print(f"{len(utterances)} utterances and {len(by_segment)} segments; 01 reads them next")
