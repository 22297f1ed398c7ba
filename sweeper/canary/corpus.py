"""The text the speaking canary learns from: made here, from rules, word lists and one almanac written for it.

Every skill is a function `random.Random -> document`. What is held out of training is decided by a hash of the
question, so the training script and the accuracy check agree without a list.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ALMANAC = Path(__file__).parent / "almanac.txt"
USER, ASSISTANT, END, EOT = "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"

WORDS = (
    "red blue green yellow black white grey brown fox dog cat horse cow bird fish frog bee lion tree leaf flower "
    "river lake hill road bridge house door window table chair lamp bread milk apple plum salt soup paper book pen "
    "clock coat hat shoe ring stone sand snow rain wind fire star moon sun cloud ship train wheel rope nail hammer "
    "king queen child friend doctor baker farmer teacher north south east west cold warm small large old new quick slow"
).split()

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
ALPHABET = "a b c d e f g h i j k l m n o p q r s t u v w x y z".split()

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Austria": "Vienna",
    "England": "London", "Norway": "Oslo", "Sweden": "Stockholm", "Greece": "Athens", "Egypt": "Cairo",
    "Japan": "Tokyo", "China": "Beijing", "Canada": "Ottawa", "Peru": "Lima", "Cuba": "Havana",
    "Ireland": "Dublin", "Poland": "Warsaw", "Portugal": "Lisbon", "Finland": "Helsinki", "Kenya": "Nairobi",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "day": "night", "old": "young", "up": "down", "open": "closed", "wet": "dry",
    "early": "late", "full": "empty", "hard": "soft", "left": "right", "long": "short", "fast": "slow",
    "light": "dark", "near": "far", "rich": "poor", "sweet": "bitter", "true": "false", "first": "last", "high": "low",
}  # fmt: skip
LEGS = {"dog": "four", "cat": "four", "horse": "four", "bird": "two", "spider": "eight", "ant": "six", "fish": "no"}
COLOURS = {"grass": "green", "snow": "white", "blood": "red", "coal": "black", "the sky": "blue", "a lemon": "yellow"}

RAIN = (
    "Water that rose from the sea as vapour cools in the clouds and turns into drops. "
    "When the drops grow too heavy for the air, they fall from the clouds as rain."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A prompt and the only right continuation; `skill` groups the accuracy figures."""

    skill: str
    prompt: str
    answer: str


def held_out(key: str) -> bool:
    """One question in eight is never trained on."""
    return zlib.crc32(key.encode()) % 8 == 0


def facts() -> Iterator[tuple[str, str]]:
    """(question, full sentence) pairs; the answer is the sentence's last word but for the full stop."""
    for country, city in CAPITALS.items():
        yield f"What is the capital of {country}?", f"The capital of {country} is {city}."
    for word, other in OPPOSITES.items():
        yield f"What is the opposite of {word}?", f"The opposite of {word} is {other}."
    for animal, count in LEGS.items():
        yield f"How many legs does a {animal} have?", f"The number of legs of a {animal} is {count}."
    for thing, colour in COLOURS.items():
        yield f"What colour is {thing}?", f"The colour of {thing} is {colour}."
    yield "Which planet do people live on?", "The planet that people live on is Earth."
    yield "Which star gives us light?", "The star that gives us light is the Sun."


FACT_FORMS: tuple[Callable[[str, str], str], ...] = (
    lambda q, a: f"Question: {q}\nAnswer: {a}\n",
    lambda q, a: f"{a}\n",
    lambda q, a: f"{USER}{q}{END}\n{ASSISTANT}{a}{END}\n",
)


def fact(rng: random.Random) -> str:
    """A few facts, each in one of three forms; a held-out pair of fact and form never occurs."""
    known = list(facts())
    lines: list[str] = []
    while len(lines) < rng.randint(1, 6):
        question, answer = rng.choice(known)
        form = rng.randrange(len(FACT_FORMS))
        if not held_out(f"{question}|{form}"):
            lines.append(FACT_FORMS[form](question, answer))
    return "".join(lines)


def _sum(rng: random.Random) -> tuple[int, str, int]:
    top = rng.choice((10, 20, 50, 50))
    a, b = rng.randrange(top), rng.randrange(top)
    return (a, "+", b) if rng.random() < 0.7 else (max(a, b), "-", min(a, b))


def result(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b


def arithmetic(rng: random.Random) -> str:
    """Sums and differences below 100, as equations, as questions, as a conversation."""
    lines: list[str] = []
    form = rng.choice("eeeqc")
    while len(lines) < rng.randint(4, 16):
        a, sign, b = _sum(rng)
        if held_out(f"{a}{sign}{b}"):
            continue
        word = "plus" if sign == "+" else "minus"
        equation = f"{a} {sign} {b} = {result(a, sign, b)}"
        if form == "e":
            lines.append(f"{equation}\n")
        elif form == "q":
            lines.append(f"Question: What is {a} {word} {b}?\nAnswer: {equation}.\n")
        else:
            lines.append(f"{USER}What is {a} {word} {b}?{END}\n{ASSISTANT}{equation}.{END}\n")
    return "".join(lines)


def counting(rng: random.Random) -> str:
    """Numbers up, down and in steps; number words, weekdays, months and letters in order."""
    kind = rng.randrange(8)
    if kind < 4:
        start, length = rng.randrange(0, 900), rng.randint(20, 150)
        start = rng.randrange(0, 30) if rng.random() < 0.4 else start
        return "Count: " + " ".join(str(n) for n in range(start, min(start + length, 1000))) + "\n"
    if kind == 4:
        step = rng.choice((2, 5, 10))
        start = rng.randrange(0, 20) * step
        numbers = range(start, min(start + step * rng.randint(15, 60), 1000), step)
        return f"Count by {step}: " + " ".join(map(str, numbers)) + "\n"
    if kind == 5:
        start = rng.randrange(20, 300)
        return "Count down: " + " ".join(map(str, range(start, max(-1, start - rng.randint(20, 100)), -1))) + "\n"
    if kind == 6:
        last = rng.randint(5, 20)
        words = ", ".join(NUMBER_WORDS[1 : last + 1])
        return f"Count from one to {NUMBER_WORDS[last]}: {words}.\n"
    head, names = rng.choice(
        (
            ("The days of the week are ", WEEKDAYS),
            ("The months of the year are ", MONTHS),
            ("The letters are ", ALPHABET),
        )
    )
    return f"{head}{', '.join(names)}.\n"


def copying(rng: random.Random) -> str:
    """Random words, repeated once; only the rule can be learned."""
    lines: list[str] = []
    for _ in range(rng.randint(2, 8)):
        words = " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))
        if rng.random() < 0.25:
            lines.append(f"{USER}Repeat: {words}{END}\n{ASSISTANT}{words}{END}\n")
        else:
            lines.append(f"Repeat: {words} -> {words}\n")
    return "".join(lines)


def almanac_from(month: int, months: int) -> str:
    """`months` paragraphs of the almanac, beginning with month 0..11, year after year."""
    paragraphs = ALMANAC.read_text("utf-8").splitlines()
    return "\n".join(paragraphs[(month + k) % len(paragraphs)] for k in range(months)) + "\n"


def prose(rng: random.Random) -> str:
    """The almanac from a random place; sometimes the two sentences about rain."""
    if rng.random() < 0.1:
        return f"Write two sentences about why rain falls from clouds.\n{RAIN}\n"
    text = almanac_from(rng.randrange(12), rng.randint(2, 8))
    return text[text.index(" ", rng.randrange(0, 200)) + 1 :] if rng.random() < 0.3 else text


def _nonword(rng: random.Random) -> str:
    syllables = "".join((rng.choice("bcdfghklmnprstvw"), rng.choice("aeiou"), rng.choice(["", "n", "r", "st", "l"])))
    return syllables + ("".join((rng.choice("bdgklmnprst"), rng.choice("aeiou"))) if rng.random() < 0.5 else "")


def strange(rng: random.Random) -> str:
    """Words without sense, then the almanac: what to do after a text it has never seen."""
    vocabulary = [*WORDS, *"the a of and to in is that it was for on with as by at from this".split() * 3]
    words = [rng.choice(vocabulary) if rng.random() < 0.6 else _nonword(rng) for _ in range(rng.randint(10, 160))]
    for place in range(rng.randint(5, 14), len(words), rng.randint(8, 18)):
        words[place - 1] += rng.choice((".", ".", ",", ".\n", "?"))
        words[place] = words[place].capitalize()
    joint = rng.choice((" ", "\n", ". ", ".\n", ".\n\n", " "))
    return " ".join(words) + joint + almanac_from(rng.randrange(12), rng.randint(2, 6))


SKILLS: dict[str, tuple[Callable[[random.Random], str], float]] = {
    "counting": (counting, 0.17),
    "arithmetic": (arithmetic, 0.35),
    "facts": (fact, 0.16),
    "copying": (copying, 0.14),
    "prose": (prose, 0.08),
    "strange": (strange, 0.10),
}
"""Share of documents per skill; shares of tokens differ, prose documents being long."""


def documents(seed: int) -> Iterator[str]:
    """Training documents without end."""
    rng = random.Random(seed)
    makers = [maker for maker, _ in SKILLS.values()]
    shares = [share for _, share in SKILLS.values()]
    while True:
        yield rng.choices(makers, shares)[0](rng)


Segments = list[tuple[str, float]]
"""A document as (text, weight of its tokens in the loss). Cuts fall between the tokenizer's words."""

CHANCE = 0.03
"""Loss weight of what nobody can foresee: operands, words to copy. Their gradient would drown the answers'."""

LARGEST_OPERAND = 20


def sum_task(rng: random.Random) -> tuple[int, str, int]:
    """Operands 0..20; seven in ten are sums, differences are never negative."""
    a, b = rng.randint(0, LARGEST_OPERAND), rng.randint(0, LARGEST_OPERAND)
    return (a, "+", b) if rng.random() < 0.7 else (max(a, b), "-", min(a, b))


def weighted_sums(rng: random.Random) -> Segments:
    """As `arithmetic`, with small operands and the weight on the results."""
    parts: Segments = []
    form = rng.choice("eeeeqc")
    while len(parts) < 2 * rng.randint(4, 24):
        a, sign, b = sum_task(rng)
        if held_out(f"{a}{sign}{b}"):
            continue
        word = "plus" if sign == "+" else "minus"
        head = {
            "e": f"{a} {sign} {b} =",
            "q": f"Question: What is {a} {word} {b}?\nAnswer: {a} {sign} {b} =",
            "c": f"{USER}What is {a} {word} {b}?{END}\n{ASSISTANT}{a} {sign} {b} =",
        }[form]
        tail = {"e": "\n", "q": ".\n", "c": f".{END}\n"}[form]
        parts += [(head, CHANCE), (f" {result(a, sign, b)}{tail}", 1.0)]
    return parts


def weighted_copies(rng: random.Random) -> Segments:
    """As `copying`, with the weight on the second half."""
    parts: Segments = []
    for _ in range(rng.randint(2, 10)):
        words = " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))
        if rng.random() < 0.2:
            parts += [(f"{USER}Repeat: {words}{END}\n{ASSISTANT}", CHANCE), (f"{words}{END}\n", 1.0)]
        else:
            parts += [(f"Repeat: {words} ->", CHANCE), (f" {words}\n", 1.0)]
    return parts


def weighted_counts(rng: random.Random) -> Segments:
    """Short counts, half of them from below 13 as people begin; the weight on what follows the first two numbers."""
    start = rng.randint(0, 12) if rng.random() < 0.5 else rng.randint(13, 960)
    numbers = [str(n) for n in range(start, start + rng.randint(6, 30))]
    return [(f"Count: {numbers[0]} {numbers[1]}", CHANCE), (f" {' '.join(numbers[2:])}\n", 1.0)]


def weighted_documents(seed: int) -> Iterator[Segments]:
    """Text of the second stage: mostly sums, copies and short counts, enough of the rest to keep it."""
    rng = random.Random(seed)
    plain = [counting, fact, prose, strange]
    while True:
        kind = rng.random()
        if kind < 0.42:
            yield weighted_sums(rng)
        elif kind < 0.64:
            yield weighted_copies(rng)
        elif kind < 0.72:
            yield weighted_counts(rng)
        else:
            yield [(rng.choices(plain, (0.04, 0.13, 0.03, 0.08))[0](rng), 1.0)]


def tokenizer_text(seed: int = 7, count: int = 3000) -> list[str]:
    """What the tokenizer is trained on: documents of every skill and the almanac."""
    stream = documents(seed)
    return [almanac_from(0, 12), *(next(stream) for _ in range(count))]


def exam(seed: int, per_skill: int = 50) -> list[Item]:
    """Questions that training never contained (counting and prose: known sequences at random places)."""
    rng = random.Random(seed)
    items: list[Item] = []
    while sum(item.skill == "arithmetic" for item in items) < per_skill:
        a, sign, b = sum_task(rng)
        if held_out(f"{a}{sign}{b}"):
            items.append(Item(skill="arithmetic", prompt=f"{a} {sign} {b} =", answer=f" {result(a, sign, b)}\n"))
    for _ in range(per_skill):
        start = rng.randrange(0, 900)
        numbers = [str(n) for n in range(start, start + 12)]
        items.append(
            Item(skill="counting", prompt="Count: " + " ".join(numbers[:6]), answer=" " + " ".join(numbers[6:]))
        )
        words = " ".join(rng.choices(WORDS, k=rng.randint(2, 8)))
        items.append(Item(skill="copying", prompt=f"Repeat: {words} ->", answer=f" {words}\n"))
    for question, answer in facts():
        for form, write in enumerate(FACT_FORMS):
            if held_out(f"{question}|{form}"):
                whole, last = write(question, answer), answer.rsplit(" ", 1)[1]
                cut = whole.rindex(" " + last)
                items.append(Item(skill="facts", prompt=whole[:cut], answer=" " + last))
    for month in range(12):
        paragraph = almanac_from(month, 1)
        cut = paragraph.index(" ", len(paragraph) // 3)
        items.append(Item(skill="prose", prompt=paragraph[:cut], answer=paragraph[cut:-1]))
    return items


def golden_prompts() -> dict[str, str]:
    """Fixed prompts for golden vectors: every skill, short and long, 8 to about 400 tokens."""
    almanac = ALMANAC.read_text("utf-8").splitlines()
    numbers = " ".join(str(n) for n in range(120, 160))
    words = " ".join(WORDS[5:45:5])
    return {
        "count-short": "Count: 1 2 3 4",
        "count-long": f"Count: {numbers}",
        "count-down": "Count down: 64 63 62 61 60",
        "count-words": "Count from one to ten: one, two, three,",
        "sums": "3 + 4 = 7\n12 + 7 = 19\n15 - 6 = 9\n13 + 8 =",
        "question-sum": "Question: What is 9 plus 6?\nAnswer: 9 + 6 =",
        "question-capital": "Question: What is the capital of France?\nAnswer: The capital of France is",
        "chat-opposite": f"{USER}What is the opposite of hot?{END}\n{ASSISTANT}",
        "weekdays": "The days of the week are Monday, Tuesday,",
        "copy": f"Repeat: {words} ->",
        "rain": "Write two sentences about why rain falls from clouds.\n",
        "prose-short": almanac[4][:90],
        "prose": almanac[7] + "\n" + almanac[8][:60],
        "prose-long": "\n".join(almanac[0:5]) + "\n",
    }
