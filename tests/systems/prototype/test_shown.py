"""What ships as prototypes: how many of the sounds shown first nearly repeat another, measured on the sounds.

python -m tests.systems.prototype.test_shown     prints the same for every dataset that ships
"""

import numpy as np
import pandas as pd
import pytest

from ser_utils.features.audio import load_audio
from ser_utils.features.spectral import log_mel_segments
from ser_utils.systems.prototype.analysis import twins
from ser_utils.workspace import REPOSITORY

FOLDERS = sorted(path.parent for path in (REPOSITORY / "prototypes").glob("*/index.csv"))
WORDS = {"speaker": str, "nearest_utterance_id": str}
# fewer recordings than six behind what is shown first. RAVDESS: the sixth is nearest only to near-duplicates of others.
# AESDD: many prototypes of a class sound alike, so that few are shown. EmoDB's voice among joined corpora: there are five
# to seven recordings to learn from.
FALLS_SHORT = {
    "ravdess": {"07 sadness": 5},
    "ravdess+emodb+aesdd": {"emodb_08 happiness": 5, "emodb_08 sadness": 4},
    "aesdd": {
        **{"1 sadness": 4, "2 anger": 4, "2 disgust": 4, "2 fear": 3, "2 happiness": 4, "2 sadness": 5},
        **{"3 anger": 5, "3 disgust": 4, "3 fear": 3, "3 happiness": 5, "3 sadness": 3},
        **{"4 anger": 5, "4 disgust": 5, "4 happiness": 3, "4 sadness": 5},
    },
}


def shown_first(folder):
    """The prototypes of a dataset that are shown first, and the log-mel of their sounds, dB (n, 128, n_frames)."""
    index = pd.read_csv(folder / "index.csv", dtype=WORDS)
    if "distinct" in index:
        index = index[index["distinct"]].reset_index(drop=True)
    names = "speaker_" + index["speaker"] + "/" + index["emotion"] + "_" + index["rank"].astype(str) + ".wav"
    sounds = [load_audio(folder / name) for name in names]
    return index, np.concatenate([log_mel_segments(signal[None], rate) for signal, rate in sounds])


def twins_and_recordings(folder):
    """The share of sounds with a twin; the recordings behind the prototypes of each emotion, and those of its class."""
    index, log_mels = shown_first(folder)
    groups = index["speaker"] + " " + index["emotion"]
    by_class = index.groupby(groups)
    recordings = {"shown": by_class["nearest_utterance_id"].nunique(), "learned": by_class["class_recordings"].first()}
    return twins(log_mels, groups).mean(), pd.DataFrame(recordings)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_few_of_the_sounds_shown_first_have_a_twin(folder):
    if "distinct" not in pd.read_csv(folder / "index.csv", nrows=1):
        pytest.skip(f"{folder.name} was made before prototypes were chosen to differ")
    share, recordings = twins_and_recordings(folder)
    assert share <= 0.15
    wanted = recordings["learned"].clip(upper=6)
    wanted.update(pd.Series(FALLS_SHORT.get(folder.name, {}), dtype=int))
    assert (recordings["shown"] >= wanted).all(), recordings


if __name__ == "__main__":
    for folder in (folder for folder in FOLDERS if "class_recordings" in pd.read_csv(folder / "index.csv", nrows=1)):
        share, recordings = twins_and_recordings(folder)
        print(f"{folder.name}: {100 * share:.0f} % have a twin", recordings, sep="\n")
