"""What each corpus is, and how its file names are read."""

import re
import unicodedata
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


class CorpusError(Exception):
    """A corpus that is absent or cannot be used as it is; the text says what to do."""


class GrammarError(ValueError):
    """A file name that is not of this corpus; `foreign` if its presence is no fault (a song, a video)."""

    def __init__(self, reason, *, foreign=False):
        self.foreign = foreign
        super().__init__(reason)


@dataclass(frozen=True)
class Corpus:
    """The facts of one corpus.

    name : what it is called here; title : what its authors call it
    language : ISO 639-1; n_files : utterances as published, 0 where nobody says
    broken : utterance ids that were published without speech; they are never used
    speakers : speaker → "female", "male", or "" where it is not documented
    emotion_of_code : native code → canonical emotion, or "" where the convention leaves it out
    sentences : sentence code → text, as far as it is documented
    parse : path within the corpus → dict of utterance_id, speaker, code, sentence and intensity;
        raises GrammarError
    layout : where its files are expected, under the data folder; folders : other names of its folder
    find_codes : folder → {utterance_id: code}, where codes stand in label files and not in names
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
    find_codes: Callable | None = None

    @property
    def emotions(self):
        """The canonical emotions it has, in canonical order."""
        return tuple(emotion for emotion in EMOTIONS if emotion in self.emotion_of_code.values())

    def utterance(self, path, codes=None):
        """What a file name says.

        path : str, relative to the corpus's folder; codes : what `find_codes` found there
        Returns dict of utterance_id, speaker, gender, language, emotion, emotion_native, sentence, intensity.
        Raises GrammarError for a name outside the grammar, an unknown speaker or emotion code.
        """
        facts = {"language": self.language, "sentence": "", "intensity": ""} | self.parse(PurePosixPath(path))
        speaker = facts["speaker"]
        code = facts.pop("code", None) or (codes or {}).get(facts["utterance_id"])
        if speaker not in self.speakers:
            raise GrammarError(f"unknown speaker {speaker!r}; {self.title} has {', '.join(self.speakers)}")
        if code is None:
            raise GrammarError("no label: no label file names it")
        if code not in self.emotion_of_code:
            known = ", ".join(f"{key} ({value})" for key, value in self.emotion_of_code.items() if value)
            raise GrammarError(f"unknown emotion code {code!r}; {self.title} has {known}")
        if not self.emotion_of_code[code]:
            raise GrammarError(f"labelled {code}, which is left out by convention", foreign=True)
        return (
            {"gender": self.speakers[speaker]}
            | facts
            | {
                "emotion": self.emotion_of_code[code],
                "emotion_native": code,
            }
        )


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
    folders=("emodb1", "berlin", "berlindatabaseofemotionalspeech"),
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
    folders=("ravdessemotionalspeechaudio", "audiospeechactors0124"),
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

# TESS -----------------------------------------------------------------------------------------------------


def _parse_tess(path):
    facts = _read(
        r"(?P<speaker>OAF?|YAF)_(?P<sentence>[a-z]+)_(?P<code>[a-z]+)", path.stem, "OAF_back_angry.wav"
    )
    # one file of the original lacks a letter: OA_bite_neutral.wav
    facts["speaker"] = {"OA": "OAF"}.get(facts["speaker"].upper(), facts["speaker"].upper())
    facts["sentence"], facts["code"] = facts["sentence"].lower(), facts["code"].lower()
    return facts | {"utterance_id": "{speaker}_{sentence}_{code}".format(**facts)}


TESS = Corpus(
    name="tess",
    title="TESS",
    language="en",
    n_files=2800,
    speakers={"OAF": "female", "YAF": "female"},  # 64 and 26 years old
    emotion_of_code={
        "angry": "anger",
        "disgust": "disgust",
        "fear": "fear",
        "happy": "happiness",
        "neutral": "neutral",
        "ps": "surprise",
        "sad": "sadness",
    },
    parse=_parse_tess,  # a sentence is "Say the word …" and its code the word
    layout="tess/OAF_angry … YAF_sad/*.wav",
    folders=(
        "torontoemotionalspeechset",
        "torontoemotionalspeechsettess",
        "tesstorontoemotionalspeechsetdata",
    ),
    licence="CC BY-NC-ND 4.0",
    citation="Pichora-Fuller, Dupuis: Toronto emotional speech set (TESS). Borealis, 2020. "
    "doi:10.5683/SP2/E8H2MF.",
    home="https://doi.org/10.5683/SP2/E8H2MF",
)

# SAVEE ----------------------------------------------------------------------------------------------------


def _parse_savee(path):
    facts = _read(
        r"(?:(?P<speaker>[a-z]{2})_)?(?P<code>sa|su|[a-z])(?P<number>\d\d)",
        path.stem,
        "DC_a01.wav or DC/a01.wav",
    )
    number, code = facts.pop("number"), facts["code"].lower()
    speaker = (facts["speaker"] or path.parent.name).upper()
    # "3 common, 2 emotion-specific and 10 generic sentences", in this order. Twelve of the neutral ones repeat
    # the emotion-specific ones; which do is not documented, so a split by sentence may share those.
    sentence = number if number <= "03" else code + number
    return {
        "utterance_id": f"{speaker}_{code}{number}",
        "speaker": speaker,
        "code": code,
        "sentence": sentence,
    }


SAVEE = Corpus(
    name="savee",
    title="SAVEE",
    language="en",
    n_files=480,
    speakers=dict.fromkeys(("DC", "JE", "JK", "KL"), "male"),
    emotion_of_code={
        "a": "anger",
        "d": "disgust",
        "f": "fear",
        "h": "happiness",
        "n": "neutral",
        "sa": "sadness",
        "su": "surprise",
    },
    parse=_parse_savee,
    layout="savee/*.wav (DC_a01.wav), or savee/AudioData/DC … KL/*.wav (a01.wav)",
    folders=("surreyaudiovisualexpressedemotion", "surreyaudiovisualexpressedemotionsavee"),
    licence="for research, after registration",
    citation="Haq, Jackson: Multimodal emotion recognition. In: Machine Audition, IGI Global, 2010, 398-423.",
    home="http://kahlan.eps.surrey.ac.uk/savee/",
)

# CREMA-D --------------------------------------------------------------------------------------------------

_CREMAD_INTENSITY = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
# VideoDemographics.csv of the corpus's own repository
_CREMAD_WOMEN = """
    1002 1003 1004 1006 1007 1008 1009 1010 1012 1013 1018 1020 1021 1024 1025 1028 1029 1030 1037 1043 1046
    1047 1049 1052 1053 1054 1055 1056 1058 1060 1061 1063 1072 1073 1074 1075 1076 1078 1079 1082 1084 1089
    1091
""".split()


def _parse_cremad(path):
    pattern = r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<code>[A-Z]{3})_(?P<intensity>LO|MD|HI|XX?)"
    facts = {key: text.upper() for key, text in _read(pattern, path.stem, "1001_IEO_ANG_HI.wav").items()}
    # one file is named 1040_ITH_SAD_X in some copies and 1040_ITH_SAD_XX in others
    facts["intensity"] = facts["intensity"].replace("XX", "X").replace("X", "XX")
    name = "{speaker}_{sentence}_{code}_{intensity}".format(**facts)
    return facts | {"utterance_id": name, "intensity": _CREMAD_INTENSITY[facts["intensity"]]}


CREMAD = Corpus(
    name="cremad",
    title="CREMA-D",
    language="en",
    n_files=7442,
    speakers={str(actor): "female" if str(actor) in _CREMAD_WOMEN else "male" for actor in range(1001, 1092)},
    emotion_of_code={
        "ANG": "anger",
        "DIS": "disgust",
        "FEA": "fear",
        "HAP": "happiness",
        "NEU": "neutral",
        "SAD": "sadness",
    },
    sentences={
        "IEO": "It's eleven o'clock.",
        "TIE": "That is exactly what happened.",
        "IOM": "I'm on my way to the meeting.",
        "IWW": "I wonder what this is about.",
        "TAI": "The airplane is almost full.",
        "MTI": "Maybe tomorrow it will be cold.",
        "IWL": "I would like a new alarm clock.",
        "ITH": "I think I have a doctor's appointment.",
        "DFA": "Don't forget a jacket.",
        "ITS": "I think I've seen this before.",
        "TSI": "The surface is slick.",
        "WSI": "We'll stop in a couple of minutes.",
    },
    parse=_parse_cremad,
    layout="cremad/AudioWAV/*.wav",
    folders=("crema", "audiowav"),
    broken=("1076_MTI_SAD_XX",),
    licence="ODbL 1.0 (database), DbCL 1.0 (contents)",
    citation="Cao, Cooper, Keutmann, Gur, Nenkova, Verma: CREMA-D: Crowd-sourced Emotional Multimodal Actors "
    "Dataset. IEEE Transactions on Affective Computing 5(4), 2014, 377-390.",
    home="https://github.com/CheyneyComputerScience/CREMA-D",
)

# EmoMatchSpanishDB ----------------------------------------------------------------------------------------

# Genders as the prototype paper's code lists them, for the 29 speakers it uses.
_EMOMATCH_MEN = "01 02 05 09 12 13 22 23 31 35 36 37 43".split()
_EMOMATCH_WOMEN = "03 04 06 07 08 10 11 20 25 29 33 40 41 45 46 49".split()


def _parse_emomatch(path):
    pattern = r"(?P<speaker>\d\d)_(?P<code>[^\W\d_]+)_(?P<sentence>\d\d)"
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()  # Alegría, Alegria
    facts = _read(pattern, plain, "07_Alegria_02.WAV")
    facts["code"] = facts["code"].capitalize()
    return facts | {"utterance_id": "{speaker}_{code}_{sentence}".format(**facts)}


EMOMATCH = Corpus(
    name="emomatch",
    title="EmoMatchSpanishDB",
    language="es",
    n_files=0,  # 2,005 and 2,050 are both reported
    speakers=dict.fromkeys((f"{speaker:02d}" for speaker in range(1, 51)), "")
    | dict.fromkeys(_EMOMATCH_MEN, "male")
    | dict.fromkeys(_EMOMATCH_WOMEN, "female"),
    emotion_of_code={
        "Ira": "anger",
        "Asco": "disgust",
        "Miedo": "fear",
        "Alegria": "happiness",
        "Neutro": "neutral",
        "Tristeza": "sadness",
        "Sorpresa": "surprise",
    },
    parse=_parse_emomatch,
    layout="emomatch/*.WAV",
    folders=("emomatchspanishdb",),
    licence="for research, from its authors",
    citation="Garcia-Cuesta, Barba Salvador, Gachet Páez: EmoMatchSpanishDB: study of speech emotion recognition "
    "machine learning models in a new Spanish elicited database. Multimedia Tools and Applications 83, 2024, "
    "13093-13112.",
    home="https://doi.org/10.1007/s11042-023-15959-w",
)

# IEMOCAP --------------------------------------------------------------------------------------------------


def _parse_iemocap(path):
    if re.fullmatch(r"Ses0\d[FM]_(impro|script)\w*?", path.stem) and "sentences" not in path.parts:
        raise GrammarError("a whole dialogue; only single sentences are used", foreign=True)
    facts = _read(
        r"Ses(?P<session>0[1-5])[FM]_(?P<sentence>impro\d\d|script\d\d_\d)[a-z]?_(?P<gender>[FM])[\dX]{3}",
        path.stem,
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
    )
    # the letter after the session says who wore the markers; the last one says who speaks
    speaker = "Ses{session}{gender}".format(**facts)
    # improvised scenes share their words, if not their sentences: the scene is what is kept together
    return {"utterance_id": path.stem, "speaker": speaker, "sentence": facts["sentence"]}


def _find_iemocap_codes(folder):
    codes = {}
    for path in sorted(folder.glob("**/EmoEvaluation/Ses*.txt")):
        text = path.read_text("utf-8", errors="replace")
        codes |= re.findall(r"^\[[\d.]+ - [\d.]+\]\s+(Ses\w+)\s+(\w{3})\s+\[", text, re.MULTILINE)
    return codes


IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    language="en",
    n_files=5531,  # of 10,039: those of the usual four classes
    speakers={
        f"Ses0{session}{letter}": gender
        for session in range(1, 6)
        for letter, gender in (("F", "female"), ("M", "male"))
    },
    emotion_of_code={
        "ang": "anger",
        "hap": "happiness",
        "exc": "happiness",  # excitement is counted as happiness by the four-class convention
        "neu": "neutral",
        "sad": "sadness",
    }
    | dict.fromkeys(("dis", "fea", "fru", "oth", "sur", "xxx"), ""),
    parse=_parse_iemocap,
    find_codes=_find_iemocap_codes,
    layout="iemocap/Session1 … Session5/{sentences/wav/*/*.wav, dialog/EmoEvaluation/*.txt}",
    folders=("iemocapfullrelease",),
    licence="for research, on request; not to be passed on",
    citation="Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan: IEMOCAP: interactive emotional "
    "dyadic motion capture database. Language Resources and Evaluation 42(4), 2008, 335-359.",
    home="https://sail.usc.edu/iemocap/",
)

CORPORA = {corpus.name: corpus for corpus in (EMODB, RAVDESS, AESDD, TESS, SAVEE, CREMAD, EMOMATCH, IEMOCAP)}
