"""Small corpora, each in the true format of its release with its known oddities; recordings are empty files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path


def make_files(root: Path, *names: str) -> Path:
    """Makes empty files below a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_text(root: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    """Writes one file below a folder."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode(encoding))


def write_crema_d(root: Path) -> Path:
    """Writes three clips in all formats of the release, with its tables of actors and votes."""
    names = ("1001_IEO_NEU_XX", "1001_IEO_ANG_MD", "1002_TIE_HAP_XX")
    make_files(root, *(f"AudioWAV/{name}.wav" for name in names), *(f"AudioMP3/{name}.mp3" for name in names))
    make_files(root, "VideoFlash/1001_IEO_NEU_XX.flv", "AudioWAV/1001_IEO_BAD_XX.wav")
    actors = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'
    write_text(root, "VideoDemographics.csv", actors)
    summary = (
        '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"\n'
        '"1","1001_IEO_NEU_XX","N","69.1","N","92.22","N","64.78"\n'
        '"9","1001_IEO_ANG_MD","A:D","37.2:58.6","A","45.5","A","44.2"\n'
    )
    write_text(root, "processedResults/summaryTable.csv", summary)
    votes = (
        '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'
        '"100001",0,0,0,1,10,0,"1001_IEO_NEU_XX",11,0.909090909090909,"N"\n'
        '"100009",5,5,0,0,1,1,"1001_IEO_ANG_MD",12,0.416666666666667,"A:D"\n'
        '"200001",9,0,0,0,0,0,"1001_IEO_NEU_XX",9,1,"A"\n'
    )
    write_text(root, "processedResults/tabulatedVotes.csv", votes)
    return root


def write_emodb(root: Path) -> Path:
    """Writes three recordings with the other files of the archive."""
    return make_files(root, "wav/03a01Fa.wav", "wav/03a01Nc.wav", "wav/16b10Wb.wav", "lablaut/03a01Fa.lablaut")


def write_esd(root: Path) -> Path:
    """Writes recordings of four speakers, with transcripts in the encodings of the release."""
    make_files(root, "0001/Angry/train/0001_000351.wav", "0003/Neutral/evaluation/0003_000001.wav")
    make_files(root, "0011/Happy/test/0011_000701.wav", "0016/Surprise/0016_001401.wav", "0011/Sad/0011_001051.wav")
    write_text(root, "0001/0001.txt", "0001_000351\t打远一看\uff0c它们的确很是美丽\uff0c\t生气\r\n", "gb18030")
    write_text(root, "0003/0003.txt", "\ufeff0003_000001\t打远一看\t中立\r\n", "utf-16-le")
    write_text(root, "0011/0011.txt", "0011_000701 The nine the eggs, I keep. Happy\n")
    write_text(root, "0016/0016.txt", "0016_001401\tI\u2019ll go\tSurprise\r\n", "cp1252")
    return root


def write_savee(root: Path) -> Path:
    """Writes recordings of the release, and one under the name of a copy."""
    make_files(root, "AudioData/DC/a01.wav", "AudioData/DC/sa15.wav", "AudioData/KL/n30.wav", "ALL/JE_su02.wav")
    return make_files(root, "AudioData/DC/x01.wav", "AudioData/Info.txt")


def write_tess(root: Path) -> Path:
    """Writes recordings of both actresses, and the misnamed one."""
    make_files(root, "YAF_pleasant_surprised/YAF_back_ps.wav", "OAF_angry/OAF_back_angry.wav")
    return make_files(root, "OAF_neutral/OA_bite_neutral.wav")


def write_nemo(root: Path) -> Path:
    """Writes the table with two of its rows, white space in front of the speakers included."""
    make_files(root, "samples/WR0_surprised_64.wav", "samples/KS0_surprised_38.wav")
    rows = (
        "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
        "WR0_surprised_64.wav\tsurprised\tUcho wykrywa dźwięki.\tucho wykrywa dźwięki\t        WR0\tmale\t23\n"
        "KS0_surprised_38.wav\tsurprised\t„Ród smoka” to serial.\t„ród smoka” to serial\t        KS0\tmale\t23\n"
    )
    write_text(root, "data.tsv", rows)
    return root


def write_cmu_mosi(root: Path) -> Path:
    """Writes label.csv and the clips of two videos."""
    make_files(root, "Raw/03bSnISJMiM/1.mp4", "Raw/03bSnISJMiM/10.mp4", "Raw/_dI--eQ6qVU/0002.mp4")
    rows = (
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        "03bSnISJMiM,10,IT WAS REALLY GOOD,2.4,,,,Positive,train\n"
        "03bSnISJMiM,1,ANYHOW,-0.6,,,,Negative,train\n"
        '_dI--eQ6qVU,2,"WELL, YES",0.0,,,,Neutral,valid\n'
    )
    write_text(root, "label.csv", rows)
    return root


PODCAST_ROWS: Mapping[str, tuple[str, float | None, float | None, float | None, str, str, str]] = {
    "MSP-PODCAST_0001_0008.wav": ("N", 2.2, 4.0, 2.6, "30", "Male", "Test1"),
    "MSP-PODCAST_0001_0009.wav": ("X", 3.777778, 3.555556, 3.777778, "Unknown", "Unknown", "Train"),
    "MSP-PODCAST_test3_0001.wav": ("", None, None, None, "", "", "Test3"),
}
PODCAST_COLUMNS = ("EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")


def write_msp_podcast(root: Path, *, as_json: bool = False) -> Path:
    """Writes the consensus labels, as CSV or JSON, and a transcript."""
    make_files(root, *(f"Audios/{name}" for name in PODCAST_ROWS))
    write_text(root, "Transcripts/MSP-PODCAST_0001_0008.txt", "Well, I would\nsay so.\n")
    if as_json:
        table = {name: dict(zip(PODCAST_COLUMNS, row, strict=True)) for name, row in PODCAST_ROWS.items()}
        write_text(root, "Labels/labels_consensus.json", json.dumps(table))
    else:
        lines = [
            ",".join([name, *("" if cell is None else str(cell) for cell in row)]) for name, row in PODCAST_ROWS.items()
        ]
        write_text(root, "Labels/labels_consensus.csv", "\n".join([",".join(("FileName", *PODCAST_COLUMNS)), *lines]))
    return root


def write_msp_improv(root: Path) -> Path:
    """Writes the consensus of two turns, each with a line of one rater."""
    make_files(root, "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav", "session6/S20H/R/MSP-IMPROV-S20H-M06-R-FM02.wav")
    lines = (
        "UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.000000; V:3.200000; D:2.800000 ; N:3.400000;\n"
        "WORKER0001; Neutral; Neutral; A:3.000000; V:3.000000; D:3.000000; N:3.000000;\n\n"
        "UTD-IMPROV-S20H-M06-R-FM02.avi; X; A:4.100000; V:NaN; D:2.000000 ; N:NaN;\n"
    )
    write_text(root, "Evalution.txt", lines)
    return root


# Corpus -> its release in small, and the number of its utterances.
RELEASES: Mapping[str, tuple[Callable[[Path], Path], int]] = {
    "crema-d": (write_crema_d, 3),
    "emodb": (write_emodb, 3),
    "esd": (write_esd, 5),
    "savee": (write_savee, 4),
    "tess": (write_tess, 3),
    "nemo": (write_nemo, 2),
    "cmu-mosi": (write_cmu_mosi, 3),
    "msp-podcast": (write_msp_podcast, 3),
    "msp-improv": (write_msp_improv, 2),
}
