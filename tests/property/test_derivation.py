"""What holds for the rows of any session, however odd its graph and its acts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replays import values

from pipelines.derive import Act, Derived, Session, Turn, norm_text, replay, training_rows
from pipelines.derive.graphs import depths, path_to

IDS = st.sampled_from(["q", "a", "b", "c", "d", "1", "ü"])
TEXTS = st.sampled_from(
    ["", "  ", "one", "two", "What?", "o\u0308ne", "one two", "two\n", "a long answer that is quoted in full"]
)
SECONDS = st.integers(0, 6).map(lambda s: s * 1_000_000)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "over": st.one_of(IDS, st.lists(IDS, max_size=2)),
        "rank": st.sampled_from([0, 1, 2, 1.5, True, "1"]),
        "annotator": st.sampled_from(["x", "y", "z"]),
        "actor": st.sampled_from(["human", "human:x", "auto:t", "model:m", "agent:a", "robot"]),
        "level": st.sampled_from(["step", "answer", "outcome", "style"]),
        "parent_id": IDS,
        "replaces": IDS,
    },
)
ACTIONS = st.sampled_from(["feedback", "feedback", "prune", "resurrect", "inject", "rank", "view"])


@st.composite
def graphs(draw: st.DrawFn) -> Any:
    ids = draw(st.lists(IDS, unique=True, max_size=7))
    nodes = {
        n: {"content": draw(st.one_of(st.none(), TEXTS)), "status": draw(st.sampled_from(["active", "pruned"]))}
        for n in ids
    }
    edges = draw(st.lists(st.tuples(IDS, IDS), max_size=9))
    match draw(st.integers(0, 4)):
        case 0:
            return {"nodes": [{"id": n, **body} for n, body in nodes.items()], "links": [list(e) for e in edges]}
        case 1:
            first = dict(reversed([(t, s) for s, t in edges]))
            return {"nodes": {n: {**body, "parent": first.get(n)} for n, body in nodes.items()}}
        case 2:
            data = [{"data": {"id": n, **body}} for n, body in nodes.items()]
            return {"elements": {"nodes": data, "edges": [{"data": {"source": s, "target": t}} for s, t in edges]}}
        case 3:
            return [
                {"id": n, "role": draw(st.sampled_from(["user", "assistant", None])), **body}
                for n, body in nodes.items()
            ]
        case _:
            return draw(st.sampled_from([None, {}, "text", [1], {"foo": 1}]))


@st.composite
def acts(draw: st.DrawFn) -> list[Act]:
    found = []
    for position in range(draw(st.integers(0, 12))):
        action = draw(ACTIONS)
        verdict = draw(st.sampled_from(["correct", "incorrect", "partial", "great"])) if action == "feedback" else None
        node = draw(st.one_of(st.none(), IDS, st.just("message-1")))
        found.append(Act(position, draw(SECONDS), action, node, draw(TEXTS), verdict, draw(METADATA)))
    for position in draw(st.lists(st.integers(0, len(found)), max_size=2)) if found else []:
        found.insert(position, Act(0, draw(SECONDS), "graph_snapshot", None, json.dumps(draw(graphs())), None, {}))
    return [act._replace(position=i) for i, act in enumerate(found)]


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    roles = draw(st.lists(st.sampled_from(["user", "assistant", "tool"]), max_size=5))
    turns = [Turn(role, draw(st.one_of(st.none(), TEXTS)), draw(SECONDS)) for role in roles]
    graph = draw(graphs())
    user, text = draw(st.sampled_from([None, "ann"])), None if graph is None else json.dumps(graph)
    return Session("u" * 32, "s", user, "en", text, len(turns), turns, draw(acts()))


many = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def is_blank(text: str) -> bool:
    return not norm_text(text)


def check_pairs(session: Session, derived: Derived) -> None:
    epochs = replay(session).epochs
    directions = set()
    for row in derived.rows:
        if row.set_name != "preferences":
            continue
        v = row.values
        assert 0 < v["margin"] <= 1
        assert (v["agreement"] is not None) == (v["pair_kind"] == "survivor_over_pruned")
        assert norm_text(v["chosen"][0][1]) != norm_text(v["rejected"][0][1])
        assert any(is_alive_sibling(epoch.states, v["chosen_node"], v["rejected_node"]) for epoch in epochs)
        directions.add((row.prompt, v["chosen_node"], v["rejected_node"], v["chosen"], v["rejected"]))
    assert not {(p, b, a, y, x) for p, a, b, x, y in directions} & directions


def is_alive_sibling(states: Any, chosen: str, rejected: str) -> bool:
    if chosen not in states or rejected not in states or states[chosen].status() == "pruned":
        return False
    return bool(states[chosen].node.parents[:1] == states[rejected].node.parents[:1] != [])


@many
@given(sessions())
def test_rows_of_any_session(session: Session) -> None:
    derived = training_rows(session)
    assert len({row.row_id for row in derived.rows}) == len(derived.rows)
    sets = {"sft", "preferences", "unpaired", "stepwise", "prompts"}
    assert {row.set_name for row in derived.rows} | {reject.set_name for reject in derived.rejects} == sets
    for row in derived.rows:
        assert row.prompt[-1][0] == "user"
        assert not any(is_blank(content) for _, content in row.prompt)
    for row in values(derived, "sft"):
        assert row["messages"][-1][0] == "assistant"
        assert not any(is_blank(content) for _, content in row["messages"])
    for row in values(derived, "stepwise"):
        assert len(row["completions"]) == len(row["labels"]) == len(row["node_refs"]) > 0
        assert all(row["labels"][:-1])
        assert not any(map(is_blank, row["completions"]))
    for row in values(derived, "unpaired"):
        assert not is_blank(row["completion"][0][1])
    check_pairs(session, derived)


@many
@given(sessions(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(session: Session, random: Any) -> None:
    shuffled = list(session.acts)
    random.shuffle(shuffled)
    other = Session(**{**vars(session), "acts": shuffled})
    assert training_rows(other) == training_rows(session)


@many
@given(sessions())
def test_a_prompt_holds_none_of_its_answers(session: Session) -> None:
    for row in training_rows(session).rows:
        said = {norm_text(content) for _, content in row.prompt}
        answers = [row.values[name][0][1] for name in ("chosen", "rejected", "completion") if name in row.values]
        assert not said & {norm_text(answer) for answer in answers}


@many
@given(sessions())
def test_depth_is_the_length_of_the_path(session: Session) -> None:
    for epoch in replay(session).epochs:
        nodes = {node_id: state.node for node_id, state in epoch.states.items()}
        found = depths(nodes)
        for node_id in nodes:
            path = path_to(nodes, node_id)
            assert found[node_id] == (None if path is None else len(path) - 1)
