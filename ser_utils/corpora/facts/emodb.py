"""EmoDB: ten actors say ten German sentences with seven emotions."""

from ser_utils.corpora.facts.grammar import Archive, Corpus, parse_name, people


def _parse(path):
    pattern = r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<code>[A-Z])[a-z]?"
    return parse_name(pattern, path.stem, "03a01Fa.wav") | {"utterance_id": path.stem}


CORPUS = Corpus(
    name="emodb",
    title="EmoDB",
    place=1,
    language="de",
    n_files=535,
    speakers=people(female="08 09 13 14 16", male="03 10 11 12 15"),
    emotion_of_code=dict(W="anger", L="boredom", E="disgust", A="fear", F="happiness", N="neutral", T="sadness"),
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
    parse=_parse,
    layout="emodb/wav/*.wav",
    folders=("emodb1", "berlin", "berlindatabaseofemotionalspeech"),
    source=Archive("http://emodb.bilderbar.info/download/download.zip"),
    licence="free to use with citation; published as CC0-1.0 by audEERING",
    may_be_shared=True,
    models_may_be_shared=True,
    citation="Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss: A database of German emotional speech. Interspeech 2005.",
    home="http://emodb.bilderbar.info",
    n_phonemes=45,
    shown_speakers=("09", "10", "13", "15"),
)
