"""`sessionlake demo`: the whole way once, on made-up conversations that look like real ones.

Every number that the demo prints is counted from what it did. The sessions are the same at every
run; only their times differ.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from archiver.errors import InputError
from archiver.sessions import SessionManager

_MARKER: Final = ".sessionlake-demo"
_THREADS: Final = 8
MAX_AGE_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Phrases:
    """One word problem in one language; {a} × {b} = {x}, then {x} ± {c} = {y}."""

    language: str
    sign: int
    question: str
    first: str
    second: str
    answer: str
    thanks: str


_PHRASES: Final = (
    Phrases("en", 1, "A train runs {a} km an hour for {b} hours, then {c} km more. How far does it get?",
            "In {b} hours it runs {a} × {b} = {x} km.", "With the rest: {x} + {c} = {y} km.",
            "The train gets {y} km far.", "Thanks! And if it were twice as fast?"),
    Phrases("en", -1, "{a} boxes hold {b} oranges each, {c} oranges are bad. How many are good?",
            "All oranges: {a} × {b} = {x}.", "Without the bad ones: {x} − {c} = {y}.",
            "{y} oranges are good.", "Could you check that once more?"),
    Phrases("de", 1, "Ein Zug fährt {b} Stunden lang {a} km/h und dann noch {c} km. Wie weit kommt er?",
            "In {b} Stunden fährt er {a} × {b} = {x} km.", "Mit dem Rest: {x} + {c} = {y} km.",
            "Der Zug kommt {y} km weit.", "Danke! Und mit doppelter Geschwindigkeit?"),
    Phrases("fr", -1, "Il y a {a} caisses de {b} oranges, dont {c} sont gâtées. Combien sont bonnes ?",
            "En tout : {a} × {b} = {x}.", "Sans les gâtées : {x} − {c} = {y}.",
            "{y} oranges sont bonnes.", "Peux-tu vérifier encore une fois ?"),
    Phrases("es", 1, "Un tren va a {a} km/h durante {b} horas y luego {c} km más. ¿Hasta dónde llega?",
            "En {b} horas recorre {a} × {b} = {x} km.", "Con el resto: {x} + {c} = {y} km.",
            "El tren recorre {y} km.", "¡Gracias! ¿Y si fuera el doble de rápido?"),
    Phrases("pt", -1, "Há {a} caixas com {b} laranjas cada, {c} estão estragadas. Quantas estão boas?",
            "Ao todo: {a} × {b} = {x}.", "Sem as estragadas: {x} − {c} = {y}.",
            "{y} laranjas estão boas.", "Podes verificar outra vez?"),
    Phrases("ja", 1, "列車が時速{a}kmで{b}時間走り、さらに{c}km進みます。全部で何km進みますか。",
            "{b}時間で {a} × {b} = {x} km 進みます。", "残りを足すと {x} + {c} = {y} km です。",
            "列車は{y}km進みます。", "ありがとう。速さが2倍ならどうなりますか。"),
    Phrases("zh", -1, "{a}个箱子里各有{b}个橙子，其中{c}个坏了。好的有多少个？",
            "一共有 {a} × {b} = {x} 个。", "去掉坏的：{x} − {c} = {y} 个。",
            "好的橙子有{y}个。", "请再检查一遍好吗？"),
    Phrases("ar", 1, "يسير قطار بسرعة {a} كم في الساعة لمدة {b} ساعات ثم {c} كم أخرى. كم يقطع؟",
            "في {b} ساعات يقطع {a} × {b} = {x} كم.", "مع الباقي: {x} + {c} = {y} كم.",
            "يقطع القطار {y} كم.", "شكرا! وماذا لو كانت سرعته ضعف ذلك؟"),
    Phrases("hi", -1, "{a} डिब्बों में {b}-{b} संतरे हैं, {c} खराब हैं। कितने अच्छे हैं?",
            "कुल संतरे: {a} × {b} = {x}।", "खराब हटाकर: {x} − {c} = {y}।",
            "{y} संतरे अच्छे हैं।", "क्या आप फिर से जाँच सकते हैं?"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conversation:
    """One made-up session: who, which texts, which graph, and what people did to it."""

    session_id: str
    user_id: str
    language: str
    turns: tuple[tuple[str, str], ...]
    graph: dict[str, Any]
    actions: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Played:
    """What was written through the session manager."""

    sessions: int
    messages: int
    interactions: int
    users: int
    languages: int
    threads: int
    seconds: float


def prepare_directory(directory: Path) -> None:
    """Make an empty directory for the demo; only an earlier demo's directory is ever cleared."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / _MARKER).is_file():
            raise InputError(
                "is not empty and holds no earlier demo", operation="demo", key=str(directory),
                hint="choose another with --dir",
            )  # fmt: skip
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).write_text("Made by `sessionlake demo`; the next demo clears this directory.\n")


def conversations(count: int) -> Iterator[Conversation]:
    """The first ``count`` conversations, the same at every call."""
    for number in range(count):
        yield _conversation(number, random.Random(f"sessionlake-demo-{number}"))  # noqa: S311  not for secrets


def _conversation(number: int, rng: random.Random) -> Conversation:
    phrases = rng.choice(_PHRASES)
    a, b = rng.randint(12, 96), rng.randint(3, 12)
    c = rng.randint(2, a - 1)
    values = {"a": a, "b": b, "c": c, "x": a * b, "y": a * b + phrases.sign * c}
    wrong = {**values, "x": a * b + rng.choice((-10, 10, a)), "y": a * b - phrases.sign * c}
    texts = {
        "q": phrases.question.format(**values),
        "s1": phrases.first.format(**values),
        "s2": phrases.second.format(**values),
        "end": phrases.answer.format(**values),
        "s1x": phrases.first.format(**wrong),
        "s2x": phrases.second.format(**{**values, "y": wrong["y"]}),
    }
    turns = [("user", texts["q"]), ("assistant", "\n".join(texts[n] for n in ("s1", "s2", "end")))]
    if rng.random() < 0.3:
        turns.append(("user", phrases.thanks))
    return Conversation(
        session_id=f"demo-{number:05d}",
        user_id=f"user-{rng.randint(1, 60):02d}",
        language=phrases.language,
        turns=tuple(turns),
        graph=_graph(texts, as_links=number % 3 == 0),
        actions=tuple(_actions(texts, rng)),
    )


def _graph(texts: dict[str, str], *, as_links: bool) -> dict[str, Any]:
    """The reasoning graph, in one of two common shapes: a dict of nodes or networkx' node-link form."""
    parents = {"q": None, "s1": "q", "s1x": "q", "s2": "s1", "s2x": "s1", "end": "s2"}
    if as_links:
        links = [{"source": p, "target": n} for n, p in parents.items() if p]
        nodes = [{"id": n, "content": texts[n]} for n in parents]
        return {"directed": True, "nodes": nodes, "links": links}
    return {"root": "q", "nodes": {n: {"content": texts[n], "parent": p} for n, p in parents.items()}}


def _actions(texts: dict[str, str], rng: random.Random) -> Iterator[dict[str, Any]]:
    """What a reader of the graph does: judge steps, prune, inject, change their mind."""
    yield _verdict("s1", "correct")
    if rng.random() < 0.75:
        yield _verdict("s1x", "incorrect")
        yield {"action_type": "prune", "node_id": "s1x", "metadata": {"over": "s1"}}
        if rng.random() < 0.3:
            yield {"action_type": "resurrect", "node_id": "s1x"}
            yield {"action_type": "prune", "node_id": "s1x", "metadata": {"over": "s1"}}
    second = rng.random()
    if second < 0.55:
        yield _verdict("s2", "correct")
    elif second < 0.75:
        yield _verdict("s2", "partial")
    if rng.random() < 0.4:
        yield {"action_type": "prune", "node_id": "s2x"}
        content = texts["s2"].replace(" = ", " = … = ", 1)
        yield {
            "action_type": "inject", "node_id": "fix", "content": content,
            "metadata": {"parent_id": "s1", "replaces": "s2x"},
        }  # fmt: skip
    yield _verdict("end", "correct" if rng.random() < 0.85 else "incorrect", level="answer")
    if rng.random() < 0.5:
        label = "correct" if rng.random() < 0.9 else "incorrect"
        yield _verdict("end", label, level="outcome", actor="auto:calculator")


def _verdict(node: str, label: str, *, level: str = "step", actor: str | None = None) -> dict[str, Any]:
    return {"action_type": "feedback", "node_id": node, "feedback": label, "level": level, "actor": actor}


def play(manager: SessionManager, count: int, progress: Callable[[int], None]) -> Played:
    """Write ``count`` conversations through the public session manager, from several threads at once."""
    started = time.perf_counter()
    script = list(conversations(count))
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, _ in enumerate(pool.map(lambda c: _play_one(manager, c), script), 1):
            progress(done)
    return Played(
        sessions=len(script),
        messages=sum(len(c.turns) for c in script),
        interactions=sum(len(c.actions) for c in script),
        users=len({c.user_id for c in script}),
        languages=len({c.language for c in script}),
        threads=_THREADS,
        seconds=time.perf_counter() - started,
    )


def _play_one(manager: SessionManager, conversation: Conversation) -> None:
    sid = conversation.session_id
    manager.create_session(sid, user_id=conversation.user_id)
    manager.update_language(sid, conversation.language)
    for role, content in conversation.turns:
        manager.add_message(sid, role, content, language=conversation.language)
    manager.update_graph_state(sid, conversation.graph)
    for action in conversation.actions:
        manager.record_interaction(sid, **action)
