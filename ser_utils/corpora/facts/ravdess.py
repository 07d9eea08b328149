"""RAVDESS, its spoken audio: 24 actors say two English sentences with eight emotions."""

from ser_utils.corpora.facts.grammar import Archive, Corpus, GrammarError, parse_name

_EMOTIONS = "neutral calm happiness sadness anger fear disgust surprise".split()  # coded 01 to 08


def _parse(path):
    facts = parse_name(
        r"(?P<modality>0[1-3])-(?P<channel>0[12])-(?P<code>\d\d)-(?P<intensity>0[12])-(?P<sentence>0[12])"
        r"-0[12]-(?P<speaker>\d\d)",
        path.stem,
        "03-01-05-02-01-02-07.wav",
    )
    modality, channel = facts.pop("modality"), facts.pop("channel")
    if channel == "02":
        raise GrammarError("a song (vocal channel 02); only speech (01) is used", foreign=True)
    if modality != "03":
        kind = {"01": "full audio-video", "02": "video only"}[modality]
        raise GrammarError(f"{kind} (modality {modality}); only 03 is", foreign=True)
    facts["intensity"] = {"01": "normal", "02": "strong"}[facts["intensity"]]
    return facts | {"utterance_id": path.stem}


CORPUS = Corpus(
    name="ravdess",
    title="RAVDESS",
    place=2,
    language="en",
    n_files=1440,
    speakers={f"{actor:02d}": "male" if actor % 2 else "female" for actor in range(1, 25)},
    emotion_of_code={f"{number:02d}": emotion for number, emotion in enumerate(_EMOTIONS, 1)},
    sentences={"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."},
    parse=_parse,
    layout="ravdess/Actor_01 … Actor_24/*.wav",
    folders=("ravdessemotionalspeechaudio", "audiospeechactors0124"),
    source=Archive(
        "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1",
        "md5:bc696df654c87fed845eb13823edef8a",  # as the Zenodo record shows it
    ),
    licence="CC BY-NC-SA 4.0",
    models_may_be_shared=True,  # not for money, and under the same licence
    citation="Livingstone, Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
    "PLoS ONE 13(5), 2018, e0196391.",
    home="https://zenodo.org/records/1188976",
    n_phonemes=44,
    shown_speakers=("06", "07", "17", "20"),
)
