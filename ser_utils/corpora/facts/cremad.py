"""CREMA-D: 91 actors say twelve English sentences with six emotions, in up to three intensities."""

from ser_utils.corpora.facts.grammar import Corpus, Files, parse_name, people

_INTENSITY = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
# VideoDemographics.csv of the corpus's own repository
_WOMEN = """
    1002 1003 1004 1006 1007 1008 1009 1010 1012 1013 1018 1020 1021 1024 1025 1028 1029 1030 1037 1043 1046
    1047 1049 1052 1053 1054 1055 1056 1058 1060 1061 1063 1072 1073 1074 1075 1076 1078 1079 1082 1084 1089
    1091
"""
_MEN = " ".join(str(actor) for actor in range(1001, 1092) if str(actor) not in _WOMEN)


def _parse(path):
    pattern = r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<code>[A-Z]{3})_(?P<intensity>LO|MD|HI|XX?)"
    facts = {key: text.upper() for key, text in parse_name(pattern, path.stem, "1001_IEO_ANG_HI.wav").items()}
    # one file is named 1040_ITH_SAD_X in some copies and 1040_ITH_SAD_XX in others
    facts["intensity"] = facts["intensity"].replace("XX", "X").replace("X", "XX")
    name = "{speaker}_{sentence}_{code}_{intensity}".format(**facts)
    return facts | {"utterance_id": name, "intensity": _INTENSITY[facts["intensity"]]}


CORPUS = Corpus(
    name="cremad",
    title="CREMA-D",
    place=6,
    language="en",
    n_files=7442,
    speakers=people(female=_WOMEN, male=_MEN),
    emotion_of_code=dict(ANG="anger", DIS="disgust", FEA="fear", HAP="happiness", NEU="neutral", SAD="sadness"),
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
    parse=_parse,
    layout="cremad/AudioWAV/*.wav",
    folders=("crema", "audiowav"),
    broken=("1076_MTI_SAD_XX",),
    # its git repository keeps recordings as large-file pointers; this is where they lead
    source=Files(
        "https://media.githubusercontent.com/media/CheyneyComputerScience/CREMA-D/master/AudioWAV", "AudioWAV"
    ),
    licence="ODbL 1.0 (database), DbCL 1.0 (contents)",
    citation="Cao, Cooper, Keutmann, Gur, Nenkova, Verma: CREMA-D: Crowd-sourced Emotional Multimodal Actors "
    "Dataset. IEEE Transactions on Affective Computing 5(4), 2014, 377-390.",
    home="https://github.com/CheyneyComputerScience/CREMA-D",
)
