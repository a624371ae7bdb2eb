"""The readers that this recipe trains: what each reads, what it looks like, and how long it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

from hyocr_core.pages.prompts import TASKS

PATCH, MERGE = 16, 2
LINE_HEIGHT = PATCH * MERGE  # a line of text lies in one row of merged image tokens
SLOT = 4  # pixels per slot of the dense training target
QUESTION = TASKS["structured_parse"]["en"]
QUESTIONS = (QUESTION, TASKS["doc_parse"]["zh"])
"""What the model is asked: the short prompt, and the official default of HunyuanOCR 1.5; a line answers both alike."""


@dataclass(frozen=True)
class Reader:
    """A page of so many lines, the texts on it, the shapes of decoder and vision tower, and the length of training.

    letters: how each letter of a to z is written, one of the characters of its string. fonts: files of matplotlib
    without `.ttf`, or `Aileron`, which lies in Pillow. width in pixels; min_chars and max_chars of one line.
    """

    letters: tuple[str, ...]
    others: str
    fonts: tuple[str, ...]
    sizes: range
    width: int
    lines: int
    min_chars: int
    max_chars: int
    text: Mapping[str, int]
    vision: Mapping[str, int]
    steps: int

    @property
    def alphabet(self) -> str:
        """Every character, once."""
        return "".join(self.letters) + self.others

    @property
    def height(self) -> int:
        """Pixels of the page."""
        return self.lines * LINE_HEIGHT

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.height // PATCH, self.width // PATCH

    @property
    def columns(self) -> int:
        """Merged image tokens of one line."""
        return self.width // LINE_HEIGHT

    @property
    def image_tokens(self) -> int:
        """All of a page, with the newline of each row and the begin and end features."""
        return self.lines * (self.columns + 1) + 2

    @property
    def slots(self) -> int:
        """Slots of one line."""
        return self.width // SLOT

    @property
    def max_tokens(self) -> int:
        """The longest answer, a token for each byte, without its end."""
        longest = max(len(char.encode()) for char in self.alphabet)
        return self.lines * self.max_chars * longest + self.lines - 1


DEMO = Reader(
    letters=tuple(ascii_lowercase),
    others="0123456789 .,-/:$",
    fonts=("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Oblique", "Aileron"),
    sizes=range(15, 23),
    width=256,
    lines=1,
    min_chars=5,
    max_chars=20,
    text={
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
    vision={
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    steps=8500,
)

_ACCENTS = {"a": "ÀÄ", "c": "Ç", "e": "ÉÊ", "n": "Ñ", "o": "ÓÖ", "u": "ÙÜ"}
DEEP = Reader(
    letters=tuple(upper + _ACCENTS.get(upper.lower(), "") for upper in ascii_uppercase),
    others="0123456789 .,-/:$&+#%",
    fonts=("STIXGeneral", "STIXGeneralBol", "DejaVuSerif-Bold", "DejaVuSansMono-Bold", "DejaVuSans-BoldOblique"),
    sizes=range(14, 21),
    width=192,
    lines=1,
    min_chars=4,
    max_chars=10,
    text={
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
    vision={
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    steps=4000,
)

_GREEK = "αβψδεφγηιξκλμνοπχρστθωςάυζ"
ASIDE = Reader(
    letters=tuple(_GREEK),
    others="0123456789 .,-/:$=!?()",
    fonts=("DejaVuSans-BoldOblique", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono", "STIXGeneralBol"),
    sizes=range(15, 21),
    width=128,
    lines=3,
    min_chars=3,
    max_chars=8,
    text={
        "hidden_size": 384,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
    },
    vision={
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    steps=2500,
)

READERS = {"demo": DEMO, "deep": DEEP, "aside": ASIDE}


def place(kind: str, name: str) -> Path:
    """Where a reader's `checkpoint` or `data` lies."""
    return Path(__file__).resolve().parent / (kind if name == "demo" else f"{kind}-{name}")
