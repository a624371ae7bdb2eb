"""What stands on a rendered page: lines of cells, of the kinds that documents are made of."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from hyocr_core.pages.fonts import find_font, shapes_text

Cell = tuple[float, str]
"""A text and where it starts: its left edge as a fraction of the page's width between the margins."""

Line = tuple[Cell, ...]


class Text(NamedTuple):
    """The lines of a page, an empty one being a gap. font: a file, None is Pillow's own. size: the largest to use."""

    lines: tuple[Line, ...]
    font: str | None = None
    size: int | None = None


_TEXT = """the of and a to in is that for it as was with be by on not this are or from at which but have an had they you
were there one all their has would what will about if no when can more time only some could other than then may
state new like any should these people world great life year day house water school work place number part order
report letter price market paper river bridge garden station winter summer north south stone light village
council meeting account invoice payment delivery window machine engine picture history science morning evening
"""
_WORDS = tuple(_TEXT.split())
_NAMES = ("Anna Keller", "John Whitfield", "Maria Lopez", "Wei Zhang", "Tom O'Brien", "Ines Duarte", "Kenji Sato")
_PLACES = (
    "12 Mill Lane, York",
    "48 Rue Haute, Lyon",
    "7 Harbour St, Boston",
    "230 Elm Ave, Austin",
    "5 Kirkgate, Leeds",
)
_GOODS = (
    "Coffee beans 500g", "Whole milk", "Rye bread", "Olive oil", "Printer paper A4", "USB-C cable", "Notebook",
    "Green tea", "AA batteries x8", "Dish soap", "Light bulb 9W", "Apples 1kg", "Pencil set", "Orange juice",
)  # fmt: skip
_SHOPS = ("CORNER MARKET", "Bright & Sons", "NORTH STREET CAFE", "Paper Goods Ltd.", "CITY HARDWARE #14")

_SYMBOLS = "∫∑√∂∞≤≥≠≈±×·αβγλπσΔ²³"

# Words of languages whose letters stand side by side, must be joined or reordered, or are not spaced.
_SPACED = {
    "German": "über straße größe früh können jahr zeitung schön brücke rechnung fünf prüfung äpfel öl grün käufer",
    "French": "été forêt où garçon français élève naïve être même août hôtel reçu première français œuvre façade",
    "Polish": "książka źródło święto żółty łódź dzień miesiąc proszę ulica środa pięć jesień ciężar ćwiczenie",
    "Vietnamese": "tiếng việt đường phố nước người một hai ngày tháng được không thành chữ sách trường học cửa",
    "Greek": "το και βιβλίο ημέρα νερό δρόμος σπίτι γράμμα πόλη θάλασσα χρόνος εργασία σχολείο άνθρωπος φως",
    "Korean": "우리는 오늘 도서관 에서 책을 읽고 학교 시간 서울 역 전화 주소 가격 합계 날짜 겨울 여름 문서 회의",
    "Russian": "город дом улица письмо вода книга день работа школа время человек счёт цена зима объём подъезд",
}
_JOINED = {
    "Arabic": "كتاب مدينة يوم ماء بيت شارع رسالة مدرسة عمل سنة سوق ورق جسر حديقة شتاء صيف",
    "Hebrew": "ספר עיר יום מים בית רחוב מכתב עבודה שנה שוק נייר גשר חורף קיץ אור אבן",
    "Hindi": "किताब शहर दिन पानी घर सड़क पत्र विद्यालय काम वर्ष बाज़ार कागज़ पुल सर्दी प्रकाश",
    "Thai": "หนังสือ เมือง วัน น้ำ บ้าน ถนน จดหมาย โรงเรียน งาน ปี ตลาด กระดาษ สะพาน",
}
_UNSPACED = {
    "Chinese": "我们 今天 城市 图书馆 学校 工作 时间 发票 金额 合计 日期 电话 地址 产品 价格 冬天 历史 科学 文件",
    "Japanese": "私たち は 今日 図書館 で 本 を 読みます 学校 時間 東京 駅 から 電車 に 乗る 料金 カード です ました",
}
_STOPS = {"Chinese": "。", "Japanese": "。", "Hindi": "।", "Thai": ""}


def sentence(rng: random.Random) -> str:
    """A few English words and perhaps a number."""
    words = rng.choices(_WORDS, k=rng.randint(5, 14))
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words)), str(rng.randint(2, 4999)))
    return " ".join(words).capitalize() + rng.choice("...?!")


def _prose(rng: random.Random, columns: int, paragraphs: int, sentences: int) -> Iterator[Line]:
    for _ in range(paragraphs):
        yield ()
        text = " ".join(sentence(rng) for _ in range(rng.randint(2, sentences)))
        for line in textwrap.wrap(text, columns):
            yield ((0.0, line),)


def title(rng: random.Random) -> str:
    """Three words."""
    return " ".join(rng.choices(_WORDS, k=3)).title()


def _paragraphs(rng: random.Random) -> Text:
    head: Line = ((0.0, title(rng)),)
    return Text((head, *_prose(rng, rng.randint(52, 76), rng.randint(3, 4), 3)))


def _small_print(rng: random.Random) -> Text:
    head: Line = ((0.0, "Terms and Conditions"),)
    return Text((head, *_prose(rng, rng.randint(84, 100), rng.randint(3, 5), 5)), size=rng.choice((10, 12)))


def _receipt(rng: random.Random) -> Text:
    return Text(tuple(_receipt_lines(rng)))


def _receipt_lines(rng: random.Random) -> Iterator[Line]:
    yield ((0.3, rng.choice(_SHOPS)),)
    yield ((0.3, _date(rng)), (0.6, f"{rng.randint(7, 21):02}:{rng.randint(0, 59):02}"))
    yield ()
    total = 0
    for good in rng.sample(_GOODS, rng.randint(4, 10)):
        cents = rng.randint(49, 4999)
        total += cents
        yield ((0.0, f"{rng.randint(1, 9)} x"), (0.12, good), (0.8, money(cents)))
    tax = total * 19 // 100
    yield ()
    for label, cents in (("Subtotal", total), ("Tax 19%", tax), ("TOTAL", total + tax)):
        yield ((0.12, label), (0.8, money(cents)))


def form_fields(rng: random.Random) -> list[tuple[str, str]]:
    """What a form may ask, and answers."""
    return [
        ("Name", rng.choice(_NAMES)),
        ("Address", rng.choice(_PLACES)),
        ("Date of birth", _date(rng)),
        ("Phone", f"+{rng.randint(1, 49)} {rng.randint(100, 999)} {rng.randint(100_000, 999_999)}"),
        ("E-mail", f"{rng.choice(_WORDS)}.{rng.choice(_WORDS)}@example.com"),
        ("Reference", f"{rng.choice('ABCDEFGH')}{rng.randint(100, 999)}-{rng.randint(1000, 9999)}/{rng.randint(1, 9)}"),
        ("Amount", money(rng.randint(1000, 9_999_999))),
        ("Remarks", " ".join(rng.choices(_WORDS, k=3))),
    ]


def _form(rng: random.Random) -> Text:
    fields = form_fields(rng)
    head: Line = ((0.0, f"Application No. {rng.randint(10_000, 99_999)}"),)
    rows: list[Line] = [
        ((0.0, f"{label}:"), (0.35, value)) for label, value in sorted(rng.sample(fields, rng.randint(5, 8)))
    ]
    return Text((head, (), *rows))


def _table(rng: random.Random) -> Text:
    lefts = (0.0, 0.3, 0.5, 0.7)
    lines: list[Line] = [tuple(zip(lefts, ("Item", "Units", "Price", "Share"), strict=True))]
    for _ in range(rng.randint(5, 14)):
        share = f"{rng.randint(0, 99)}.{rng.randint(0, 9)}%"
        cells = (rng.choice(_WORDS).title(), str(rng.randint(1, 9999)), money(rng.randint(10, 99_999)), share)
        lines.append(tuple(zip(lefts, cells, strict=True)))
    return Text(tuple(lines))


def _numbers(rng: random.Random) -> Text:
    lines: list[Line] = []
    for _ in range(rng.randint(6, 16)):
        digits = "".join(rng.choices("0123456789", k=16))
        grouped = " ".join(digits[start:end] for start, end in pairwise(range(0, 17, 4)))
        number = rng.choice((grouped, _date(rng), f"{int(digits):,}", f"-{digits[:3]}.{digits[3:9]}"))
        lines.append(((0.0, number),))
    return Text(tuple(lines))


def _formulas(rng: random.Random) -> Text:
    """Numbered equations as plain text; in mathematical symbols where a font has them."""
    font = find_font(_SYMBOLS)
    lines: list[Line] = [((0.0, f"Exercise {rng.randint(1, 40)}"),)]
    for number in range(1, rng.randint(5, 9)):
        a, b, c, n = (rng.randint(2, 99) for _ in range(4))
        plain = (
            f"{a}x^2 + {b}x - {c} = 0",
            f"f(x) = {a} sin({b}x) + {c}",
            f"({a} + {b}) * {c} = {(a + b) * c}",
            "P(A|B) = P(B|A) P(A) / P(B)",
            f"y_{n} = {a} y_{n - 1} + {b}",
            f"log({a * b}) = log({a}) + log({b})",
        )
        symbols = (
            f"∫ {a}x² dx = {a}x³/3 + C",
            f"√({a}x + {b}) ≥ {c}, x ≠ {n}",
            f"α + β + γ = π, α ≈ {a}.{b}",
            f"∂u/∂t = {a} · ∂²u/∂x²",
            f"∑ λ² ≤ {n}σ², n = ∞",
            f"Δ = {b}² - 4 · {a} · {c} = {b * b - 4 * a * c}, x = {n} ± {c}",
        )
        lines += [(), ((0.05, f"({number})"), (0.2, rng.choice(plain if font is None else plain + symbols)))]
    return Text(tuple(lines), font)


def _scripts(rng: random.Random) -> Text:
    """Prose in a language whose letters a font of this machine has; English where none has any."""
    fonts = _fonts()
    if not fonts:
        return _paragraphs(rng)
    name = rng.choice(sorted(fonts))
    lines = _unspaced_lines(rng, name) if name in _UNSPACED else _spaced_lines(rng, name)
    return Text(tuple(lines), fonts[name])


def _fonts() -> dict[str, str]:
    """Language -> font, for those that have one."""
    words = _SPACED | _UNSPACED | (_JOINED if shapes_text() else {})
    found = {name: find_font(text + _stop(name)) for name, text in words.items()}
    return {name: font for name, font in found.items() if font is not None}


def _stop(language: str) -> str:
    return _STOPS.get(language, ".")


def _spaced_lines(rng: random.Random, language: str) -> Iterator[Line]:
    words = (_SPACED | _JOINED)[language].split()
    for paragraph in range(rng.randint(2, 4)):
        if paragraph:
            yield ()
        sentences = [
            " ".join(rng.choices(words, k=rng.randint(4, 10))) + _stop(language) for _ in range(rng.randint(2, 4))
        ]
        for line in textwrap.wrap(" ".join(sentences), 48, break_on_hyphens=False):
            yield ((0.0, line),)


def _unspaced_lines(rng: random.Random, language: str) -> Iterator[Line]:
    words = _UNSPACED[language].split()
    for paragraph in range(rng.randint(2, 4)):
        if paragraph:
            yield ()
        sentences = [
            "".join(rng.choices(words, k=rng.randint(4, 9))) + _stop(language) for _ in range(rng.randint(2, 4))
        ]
        for line in textwrap.wrap("".join(sentences), 26):
            yield ((0.0, line),)


def _date(rng: random.Random) -> str:
    year, month, day = rng.randint(1950, 2035), rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice((f"{year}-{month:02}-{day:02}", f"{day:02}/{month:02}/{year}", f"{day}.{month}.{year}"))


def money(cents: int) -> str:
    """An amount in dollars."""
    return f"${cents // 100:,}.{cents % 100:02}"


KINDS: tuple[Callable[[random.Random], Text], ...] = (
    _paragraphs,
    _receipt,
    _form,
    _table,
    _numbers,
    _formulas,
    _scripts,
    _small_print,
)
"""Each writes a page of its kind; the same state of `rng` and the same fonts give the same text."""
