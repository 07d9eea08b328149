"""What each corpus is, and how its file names are read."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

EMOTIONS = (
    "anger",
    "boredom",
    "calm",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
)
"""The canonical emotions, in the order in which tables and figures show them."""


class GrammarError(ValueError):
    """A file name that this corpus does not use; `foreign` if it belongs to a sister corpus instead."""

    def __init__(self, reason, *, foreign=False):
        self.foreign = foreign
        super().__init__(reason)


@dataclass(frozen=True)
class Corpus:
    """The facts of one corpus.

    name : what it is called here; title : what its authors call it
    language : ISO 639-1; n_files : as published, with `broken` (utterance ids without audio) among them
    speakers : speaker → "female", "male", or "" where it is not documented
    emotion_of_code : native code → canonical emotion
    sentences : sentence code → text, as far as it is documented
    parse : path within the corpus → dict of utterance_id, speaker, code, sentence and intensity;
        raises GrammarError
    layout : where its files are expected, under the data folder; folders : other names it is found under
    """

    name: str
    title: str
    language: str
    n_files: int
    speakers: dict
    emotion_of_code: dict
    parse: Callable
    layout: str
    licence: str
    citation: str
    home: str
    sentences: dict = field(default_factory=dict)
    folders: tuple = ()
    broken: tuple = ()

    @property
    def emotions(self):
        """The canonical emotions it has, in canonical order."""
        return tuple(emotion for emotion in EMOTIONS if emotion in self.emotion_of_code.values())

    def utterance(self, path):
        """What a file name says.

        path : str, relative to the corpus's folder
        Returns dict of utterance_id, speaker, gender, emotion, emotion_native, sentence, intensity.
        Raises GrammarError for a name outside the grammar, an unknown speaker or emotion code.
        """
        facts = {"sentence": "", "intensity": ""} | self.parse(PurePosixPath(path))
        speaker, code = facts["speaker"], facts.pop("code")
        if speaker not in self.speakers:
            raise GrammarError(f"unknown speaker {speaker!r}; {self.title} has {', '.join(self.speakers)}")
        if code not in self.emotion_of_code:
            known = ", ".join(f"{key} ({value})" for key, value in self.emotion_of_code.items())
            raise GrammarError(f"unknown emotion code {code!r}; {self.title} has {known}")
        return facts | {
            "gender": self.speakers[speaker],
            "emotion": self.emotion_of_code[code],
            "emotion_native": code,
        }


def _read(pattern, text, example):
    found = re.fullmatch(pattern, text, re.IGNORECASE)
    if not found:
        raise GrammarError(f"named outside the grammar, which is like {example}")
    return found.groupdict()


# EmoDB ----------------------------------------------------------------------------------------------------


def _parse_emodb(path):
    facts = _read(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<code>[A-Z])[a-z]?", path.stem, "03a01Fa.wav")
    return facts | {"utterance_id": path.stem}


EMODB = Corpus(
    name="emodb",
    title="EmoDB",
    language="de",
    n_files=535,
    speakers={
        "03": "male",
        "08": "female",
        "09": "female",
        "10": "male",
        "11": "male",
        "12": "male",
        "13": "female",
        "14": "female",
        "15": "male",
        "16": "female",
    },
    emotion_of_code={
        "W": "anger",
        "L": "boredom",
        "E": "disgust",
        "A": "fear",
        "F": "happiness",
        "N": "neutral",
        "T": "sadness",
    },
    sentences={
        "a01": "Der Lappen liegt auf dem Eisschrank.",
        "a02": "Das will sie am Mittwoch abgeben.",
        "a04": "Heute abend könnte ich es ihm sagen.",
        "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
        "a07": "In sieben Stunden wird es soweit sein.",
        "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
        "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
        "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
        "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
        "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
    },
    parse=_parse_emodb,
    layout="emodb/wav/*.wav",
    folders=("emo-db", "berlin"),
    licence="free to use with citation; published as CC0-1.0 by audEERING",
    citation="Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss: A database of German emotional speech. "
    "Interspeech 2005.",
    home="http://emodb.bilderbar.info",
)

# RAVDESS --------------------------------------------------------------------------------------------------

_RAVDESS_MODALITY = {"01": "full audio-video", "02": "video only"}


def _parse_ravdess(path):
    facts = _read(
        r"(?P<modality>0[1-3])-(?P<channel>0[12])-(?P<code>\d\d)-(?P<intensity>0[12])-(?P<sentence>0[12])"
        r"-(?P<repetition>0[12])-(?P<speaker>\d\d)",
        path.stem,
        "03-01-05-02-01-02-07.wav",
    )
    modality, channel = facts.pop("modality"), facts.pop("channel")
    if channel == "02":
        raise GrammarError("a song (vocal channel 02); only speech (01) is used", foreign=True)
    if modality != "03":
        raise GrammarError(f"{_RAVDESS_MODALITY[modality]} (modality {modality}); only 03 is", foreign=True)
    facts["intensity"] = {"01": "normal", "02": "strong"}[facts["intensity"]]
    facts.pop("repetition")
    return facts | {"utterance_id": path.stem}


RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS",
    language="en",
    n_files=1440,
    speakers={f"{actor:02d}": "male" if actor % 2 else "female" for actor in range(1, 25)},
    emotion_of_code={
        "01": "neutral",
        "02": "calm",
        "03": "happiness",
        "04": "sadness",
        "05": "anger",
        "06": "fear",
        "07": "disgust",
        "08": "surprise",
    },
    sentences={"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."},
    parse=_parse_ravdess,
    layout="ravdess/Actor_01 … Actor_24/*.wav",
    licence="CC BY-NC-SA 4.0",
    citation="Livingstone, Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
    "PLoS ONE 13(5), 2018, e0196391.",
    home="https://zenodo.org/records/1188976",
)

# AESDD ----------------------------------------------------------------------------------------------------


def _parse_aesdd(path):
    pattern = r"(?P<code>[a-z])(?P<sentence>\d\d) ?\(0?(?P<speaker>\d)\) ?[ab]?"
    facts = _read(pattern, path.stem, "a01 (1).wav")
    facts["code"] = facts["code"].lower()
    if facts["sentence"] == "20":  # improvised anew by every actor for every emotion
        facts["sentence"] = "20{code}{speaker}".format(**facts)
    return facts | {"utterance_id": path.stem}


AESDD = Corpus(
    name="aesdd",
    title="AESDD",
    language="el",
    n_files=605,
    # "5 (3 female and 2 male)", later more: its documentation does not say which number is whose
    speakers=dict.fromkeys("123456", ""),
    emotion_of_code={"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "s": "sadness"},
    parse=_parse_aesdd,
    layout="aesdd/*.wav, or in a folder per emotion",
    broken=("s05 (3)",),
    licence="CC BY 4.0 as re-published; cite the authors",
    citation="Vryzas, Kotsakis, Liatsou, Dimoulas, Kalliris: Speech emotion recognition for performance "
    "interaction. Journal of the Audio Engineering Society 66(6), 2018, 457-467.",
    home="http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/",
)

CORPORA = {corpus.name: corpus for corpus in (EMODB, RAVDESS, AESDD)}
