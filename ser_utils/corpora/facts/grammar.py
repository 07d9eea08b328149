"""What can be said of a corpus, and what a file name says under its grammar."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

EMOTIONS = ("anger", "boredom", "calm", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
"""The canonical emotions, in the order in which tables and figures show them."""


class GrammarError(ValueError):
    """A file name that is not of this corpus; `foreign` if its presence is no fault (a song, a video)."""

    def __init__(self, reason: str, *, foreign: bool = False):
        self.foreign = foreign
        super().__init__(reason)


@dataclass(frozen=True)
class Archive:
    """A zip of a whole corpus.

    Attributes
    ----------
    checksum : "md5:…" or "sha256:…" as its publisher documents it; "" where there is none: then the checksum of the
        first download is recorded, and later downloads are held to it
    is_steady : False where the server packs it anew each time, so that only the files inside can be checked
    """

    url: str
    checksum: str = ""
    is_steady: bool = True


@dataclass(frozen=True)
class Files:
    """Single files, one per utterance of the committed index: {url}/{utterance_id}.wav, kept in `folder`."""

    url: str
    folder: str


@dataclass(frozen=True)
class Corpus:
    """The facts of one corpus.

    Attributes
    ----------
    name : what it is called here
    title : what its authors call it
    language : ISO 639-1
    n_files : utterances as published, or as the reader's own table names them; 0 where nobody says
    speakers : speaker → "female", "male", or "" where it is not documented
    emotion_of_code : native code → canonical emotion, or "" where the convention leaves it out
    parse : path within the corpus → dict of utterance_id, speaker, code, sentence and intensity;
        raises GrammarError
    layout : where its files are expected, under the data folder
    may_be_shared : whether its licence lets anybody pass its recordings on
    models_may_be_shared : whether its licence lets anybody pass on what was learned from them, under the same licence
    place : its place in lists of corpora; corpora without one come last
    sentences : sentence code → text, as far as it is documented
    folders : other names of its folder
    broken : ids of utterances that were published without speech; they are never used
    find_codes : folder → {utterance_id: code}, where codes stand in label files and not in names
    source : where it is downloaded from; None where it must be asked for
    how_to_get : whom to ask where it cannot be downloaded
    n_phonemes : phonemes of its language as the prototype paper counts them, 0 where it does not
    shown_speakers : the speakers whose prototypes that paper shows
    is_own : whether it is the reader's own
    """

    name: str
    title: str
    language: str
    n_files: int
    speakers: dict[str, str]
    emotion_of_code: dict[str, str]
    parse: Callable[[PurePosixPath], dict[str, str]]
    layout: str
    licence: str = ""
    citation: str = ""
    home: str = ""
    may_be_shared: bool = False
    models_may_be_shared: bool = False
    place: int = 99
    sentences: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    find_codes: Callable[[Path], dict[str, str]] | None = None
    source: Archive | Files | None = None
    how_to_get: str = ""
    n_phonemes: int = 0
    shown_speakers: tuple[str, ...] = ()
    is_own: bool = False

    @property
    def emotions(self) -> tuple[str, ...]:
        """The canonical emotions it has, in canonical order."""
        return tuple(emotion for emotion in EMOTIONS if emotion in self.emotion_of_code.values())

    def utterance(self, path: str, codes: dict[str, str] | None = None) -> dict[str, str]:
        """Read what a file name says.

        Parameters
        ----------
        path : relative to the corpus's folder
        codes : what `find_codes` found there

        Returns
        -------
        dict of utterance_id, speaker, gender, language, emotion, emotion_native, sentence, intensity

        Raises
        ------
        GrammarError : for a name outside the grammar, an unknown speaker or emotion code
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
        labels = {"emotion": self.emotion_of_code[code], "emotion_native": code}
        return {"gender": self.speakers[speaker]} | facts | labels


def parse_name(pattern: str, name: str, example: str) -> dict[str, str]:
    """Read a file name's named groups, whatever its capitalisation; raises GrammarError naming the example."""
    match = re.fullmatch(pattern, name, re.IGNORECASE)
    if not match:
        raise GrammarError(f"named outside the grammar, which is like {example}")
    return match.groupdict()


def people(*, female: str = "", male: str = "", undocumented: str = "") -> dict[str, str]:
    """Map speaker ids, given as words of a text, to genders: `Corpus.speakers`, sorted by id."""
    genders = {"female": female, "male": male, "": undocumented}
    return dict(sorted((speaker, gender) for gender, ids in genders.items() for speaker in ids.split()))
