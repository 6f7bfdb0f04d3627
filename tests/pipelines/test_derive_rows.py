"""What sessions mean as training data, one rule a test."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, ClassVar

import pytest
from replays import (
    QUESTION,
    act,
    as_sessions,
    pairs,
    real_records,
    reasons,
    rows_of,
    says,
    session,
    tree,
    turns,
    values,
)

from pipelines.derive import Act, Rules, replay, training_rows
from pipelines.derive.context import chat_of, row_id

AB = tree(a="q", b="q")
STEPS = tree(s1="q", s2="s1", s3="s2")


def snapshot(graph: Any, *, at: int) -> Act:
    return act("graph_snapshot", None, at=at, content=json.dumps(graph))


class TestPairs:
    def test_a_prune_that_names_what_it_preferred(self) -> None:
        assert pairs(rows_of(AB, [act("prune", "b", over="a")])) == [("a", "b", "survivor_over_pruned")]

    def test_a_prune_beside_a_correct_sibling(self) -> None:
        derived = rows_of(AB, [says("correct", "a"), act("prune", "b")])
        assert pairs(derived) == [("a", "b", "survivor_over_pruned")]
        assert values(derived, "preferences")[0]["agreement"] == 1

    def test_a_prune_alone_prefers_nothing(self) -> None:
        assert pairs(rows_of(AB, [act("prune", "b")])) == []

    def test_only_siblings_are_compared(self) -> None:
        derived = rows_of(tree(a="q", b="q", c="a"), [act("prune", "b", over="c"), says("correct", "c")])
        assert pairs(derived) == []
        assert reasons(derived, "preferences") == ["not_a_sibling"]

    def test_roots_are_nobodys_siblings(self) -> None:
        assert pairs(rows_of(tree(a=None, b=None), [says("correct", "a"), says("incorrect", "b")])) == []

    def test_the_answer_is_the_whole_path(self) -> None:
        derived = rows_of(tree(s="q", a="s", b="s"), [says("correct", "a"), says("incorrect", "b")])
        row = values(derived, "preferences")[0]
        assert row["chosen"] == (("assistant", "text of s\ntext of a"),)
        assert row["rejected"] == (("assistant", "text of s\ntext of b"),)

    @pytest.mark.parametrize(
        ("better", "worse", "margin"),
        [("correct", "incorrect", 1.0), ("correct", "partial", 0.5), ("partial", "incorrect", 0.5)],
    )
    def test_verdicts_are_ordered(self, better: str, worse: str, margin: float) -> None:
        derived = rows_of(AB, [says(better, "a"), says(worse, "b")])
        assert pairs(derived) == [("a", "b", "verdict_order")]
        assert values(derived, "preferences")[0]["margin"] == margin
        assert values(derived, "preferences")[0]["agreement"] is None

    def test_levels_are_not_compared_with_each_other(self) -> None:
        assert pairs(rows_of(AB, [says("correct", "a", level="answer"), says("incorrect", "b", level="step")])) == []

    def test_an_inject_replaces_a_pruned_step(self) -> None:
        derived = rows_of(
            STEPS, [act("prune", "s2"), act("inject", "h", content="better", replaces="s2", parent_id="s1")]
        )
        assert pairs(derived) == [("h", "s2", "inject_over_pruned")]
        assert values(derived, "preferences")[0]["margin"] == 1

    def test_an_inject_beside_the_one_pruned_sibling(self) -> None:
        acts = [act("prune", "a", at=5), act("inject", "h", at=5, content="better", parent_id="q")]
        assert pairs(rows_of(AB, acts)) == [("h", "a", "inject_over_pruned")]

    def test_an_inject_before_the_prune_was_no_answer_to_it(self) -> None:
        acts = [act("inject", "h", at=5, content="better", parent_id="q"), act("prune", "a", at=6)]
        assert pairs(rows_of(AB, acts)) == []

    def test_an_inject_beside_two_pruned_siblings_replaces_neither(self) -> None:
        acts = [act("prune", "a"), act("prune", "b"), act("inject", "h", at=20, content="better", parent_id="q")]
        assert pairs(rows_of(AB, acts)) == []

    def test_resurrected_and_pruned_again(self) -> None:
        acts = [act("prune", "b", over="a"), act("resurrect", "b", at=11), act("prune", "b", at=12, over="a")]
        assert pairs(rows_of(AB, acts)) == [("a", "b", "survivor_over_pruned")]
        assert pairs(rows_of(AB, acts[:2])) == []

    @pytest.mark.parametrize(
        ("resurrects", "agreement", "tied"),
        [(1, 2 / 3, False), (2, None, True), (3, None, False), (0, 1.0, False)],
        ids=["2 of 3", "tie", "2 of 5", "all"],
    )
    def test_the_majority_of_annotators_decides(self, resurrects: int, agreement: float | None, tied: bool) -> None:
        acts = [act("prune", "b", over="a", annotator=n) for n in ("x", "y")]
        acts += [act("resurrect", "b", annotator=f"z{i}") for i in range(resurrects)]
        derived = rows_of(AB, acts)
        assert [row["agreement"] for row in values(derived, "preferences")] == ([agreement] if agreement else [])
        assert [row["margin"] for row in values(derived, "preferences")] == ([agreement] if agreement else [])
        assert ("tied_votes" in reasons(derived, "preferences")) is tied

    @pytest.mark.parametrize(
        ("first", "last", "status"), [("prune", "resurrect", "active"), ("resurrect", "prune", "pruned")]
    )
    def test_a_tie_leaves_the_node_as_the_last_vote_did(self, first: str, last: str, status: str) -> None:
        votes = [act(first, "a", at=1, annotator="x"), act(last, "a", at=2, annotator="y")]
        assert replay(session(AB, votes)).last.states["a"].status() == status

    def test_a_node_that_annotators_are_split_over_is_never_chosen(self) -> None:
        split = [act("prune", "a", annotator="x"), act("resurrect", "a", annotator="y")]
        derived = rows_of(AB, [*split, act("prune", "b", over="a")])
        assert pairs(derived) == []
        assert reasons(derived, "preferences") == ["chosen_not_clean", "tied_votes"]

    def test_a_prune_that_contradicts_a_verdict(self) -> None:
        derived = rows_of(AB, [act("prune", "b", over="a"), says("correct", "b")])
        assert pairs(derived) == []
        assert reasons(derived, "preferences") == ["prune_contradicts_verdict"]

    @pytest.mark.parametrize("spoils", [act("prune", "s"), says("incorrect", "s"), says("incorrect", "a")])
    def test_chosen_needs_a_clean_path(self, spoils: Act) -> None:
        derived = rows_of(tree(s="q", a="s", b="s"), [act("prune", "b", over="a"), spoils])
        assert pairs(derived) == []
        assert "chosen_not_clean" in reasons(derived, "preferences")

    def test_equal_texts_are_no_pair(self) -> None:
        graph = tree(a="q", b="q")
        graph["nodes"]["b"]["content"] = "  text of\na "
        derived = rows_of(graph, [act("prune", "b", over="a")])
        assert pairs(derived) == []
        assert reasons(derived, "preferences") == ["equal_texts"]

    @pytest.mark.parametrize(("kinds", "found"), [((), []), (("agent",), [("a", "b", "survivor_over_pruned")])])
    def test_a_programs_prune_counts_on_request(self, kinds: tuple[str, ...], found: list[Any]) -> None:
        rules = Rules(frozenset(kinds), frozenset(kinds)) if kinds else Rules()
        assert pairs(rows_of(AB, [act("prune", "b", over="a", actor="agent:bfs")], rules=rules)) == found

    def test_ranks_of_one_person(self) -> None:
        acts = [act("rank", "a", rank=1), act("rank", "b", rank=2)]
        derived = rows_of(AB, acts)
        assert pairs(derived) == [("a", "b", "rank")]
        assert values(derived, "preferences")[0]["margin"] == 0.5

    def test_ranks_that_are_tied_disagree_or_are_anothers(self) -> None:
        tied = [act("rank", "a", rank=1), act("rank", "b", rank=1)]
        other = [act("rank", "a", rank=1, annotator="x"), act("rank", "b", rank=2, annotator="y")]
        swapped = [act("rank", "a", rank=2, annotator="y"), act("rank", "b", rank=1, annotator="y")]
        both = [act("rank", "b", rank=2, annotator="x"), other[0], *swapped]
        assert [pairs(rows_of(AB, acts)) for acts in (tied, other, both)] == [[], [], []]
        assert reasons(rows_of(AB, both), "preferences") == ["ranks_disagree"]

    def test_a_pair_has_one_direction(self) -> None:
        acts = [act("rank", "a", rank=2), act("rank", "b", rank=1), says("correct", "a"), says("incorrect", "b")]
        assert pairs(rows_of(AB, acts)) == [("a", "b", "verdict_order")]

    def test_a_family_of_thousands_is_bounded(self) -> None:
        graph = tree(**{f"n{i:03d}": "q" for i in range(100)})
        acts = [says("correct" if i % 2 else "incorrect", f"n{i:03d}") for i in range(100)]
        derived = rows_of(graph, acts)
        assert len(pairs(derived)) == 1000
        assert "too_many_siblings" in reasons(derived, "preferences")


class TestVerdicts:
    def test_the_last_verdict_of_an_actor_counts(self) -> None:
        acts = [says("incorrect", "a", annotator="x"), says("correct", "a", annotator="x"), says("incorrect", "b")]
        assert pairs(rows_of(AB, acts)) == [("a", "b", "verdict_order")]

    def test_disagreement_labels_nothing(self) -> None:
        acts = [says("correct", "a", annotator="x"), says("incorrect", "a", annotator="y"), says("incorrect", "b")]
        derived = rows_of(AB, acts)
        assert pairs(derived) == []
        assert reasons(derived, "unpaired") == ["conflicting_verdicts"]

    def test_a_human_overrides_a_program(self) -> None:
        acts = [says("incorrect", "a", actor="auto:tests"), says("correct", "a", actor="human")]
        assert [row["label"] for row in values(rows_of(AB, acts), "unpaired")] == [True]

    @pytest.mark.parametrize("actor", ["model:gpt", "agent:x", "somebody"])
    def test_models_and_strangers_do_not_train(self, actor: str) -> None:
        assert values(rows_of(AB, [says("correct", "a", actor=actor)]), "unpaired") == []

    def test_unknown_levels_do_not_train(self) -> None:
        assert values(rows_of(AB, [says("correct", "a", level="style")]), "unpaired") == []


class TestStepwise:
    def labels(self, *acts: Act, graph: Any = STEPS) -> list[list[bool]]:
        return [row["labels"] for row in values(rows_of(graph, acts), "stepwise")]

    def test_up_to_and_including_the_first_error(self) -> None:
        acts = (says("correct", "s1"), says("incorrect", "s2"), says("correct", "s3"))
        assert self.labels(*acts) == [[True, False]]

    @pytest.mark.parametrize(
        "stop", [says("partial", "s2"), says("correct", "s2", level="outcome"), act("prune", "s2")]
    )
    def test_stops_before_what_is_no_label(self, stop: Act) -> None:
        assert self.labels(says("correct", "s1"), stop, says("correct", "s3")) == [[True]]

    def test_a_pruned_step_may_be_the_incorrect_end(self) -> None:
        assert self.labels(says("correct", "s1"), says("incorrect", "s2"), act("prune", "s2")) == [[True, False]]

    def test_an_answers_verdict_labels_a_leaf_only(self) -> None:
        answer = [says("correct", n, level="answer") for n in ("s2", "s3")]
        assert self.labels(says("correct", "s1"), *answer) == [[True]]
        assert self.labels(says("correct", "s1"), says("correct", "s2"), *answer) == [[True, True, True]]

    def test_an_injected_step_that_stayed_is_correct(self) -> None:
        inject = act("inject", "h", content="better", parent_id="s1")
        assert sorted(self.labels(says("correct", "s1"), inject)) == [[True], [True, True]]
        assert self.labels(says("correct", "s1"), inject, act("prune", "h", at=20)) == [[True]]
        model = act("inject", "h", content="better", parent_id="s1", actor="model:m")
        assert self.labels(says("correct", "s1"), model) == [[True]]

    def test_a_blank_step_is_none(self) -> None:
        graph = json.loads(json.dumps(STEPS))
        graph["nodes"]["s2"]["content"] = " \n"
        assert self.labels(*(says("correct", f"s{i}") for i in (1, 2, 3)), graph=graph) == [[True, True]]

    def test_shared_beginnings_are_one_row(self) -> None:
        assert self.labels(says("correct", "a"), graph=tree(a="q", b="a", c="a")) == [[True]]


class TestUnpaired:
    def test_a_correct_step_inside_an_answer_gives_nothing(self) -> None:
        assert values(rows_of(STEPS, [says("correct", "s1")]), "unpaired") == []

    def test_an_incorrect_step_comes_with_its_path(self) -> None:
        rows = values(rows_of(STEPS, [says("incorrect", "s2")]), "unpaired")
        assert [(row["completion"][0][1], row["label"]) for row in rows] == [("text of s1\ntext of s2", False)]

    def test_a_correct_answer_needs_a_clean_path(self) -> None:
        derived = rows_of(STEPS, [says("incorrect", "s1"), says("correct", "s3")])
        assert [row["node_id"] for row in values(derived, "unpaired")] == ["s1"]
        assert reasons(derived, "unpaired") == ["not_clean"]

    def test_answer_then_outcome_then_step(self) -> None:
        acts = [says("correct", "s3", level="step"), says("partial", "s3", level="outcome")]
        assert reasons(rows_of(STEPS, acts), "unpaired") == ["partial_verdict"]
        acts.append(says("correct", "s3", level="answer"))
        assert [row["label"] for row in values(rows_of(STEPS, acts), "unpaired")] == [True]

    def test_a_quotation_of_its_parent_is_a_fragment(self) -> None:
        graph = tree(a="q", c="a")
        graph["nodes"]["a"]["content"] = "Two claims. The first claim."
        graph["nodes"]["c"]["content"] = "The first claim."
        assert reasons(rows_of(graph, [says("correct", "c")]), "unpaired") == ["correct_fragment"]


class TestMessages:
    CHAT = turns("one?", "1", "two?", "2")

    @pytest.mark.parametrize("name", ["3", "m3", "message-3", "client-id"])
    def test_a_verdict_names_a_message(self, name: str) -> None:
        extra = json.dumps({"messages": {"3": {"id": "client-id"}}})
        derived = rows_of(None, [says("correct", name)], self.CHAT, extra=extra)
        assert values(derived, "unpaired") == [
            {"completion": (("assistant", "2"),), "label": True, "node_id": "message-3"}
        ]
        assert derived.rows[-1].prompt == (("user", "one?"), ("assistant", "1"), ("user", "two?"))

    def test_an_incorrect_message_rejects_the_chat(self) -> None:
        derived = rows_of(None, [says("incorrect", "1")], self.CHAT)
        assert values(derived, "sft") == []
        assert reasons(derived, "sft") == ["answer_incorrect"]

    def test_a_users_message_is_no_answer(self) -> None:
        assert values(rows_of(None, [says("correct", "0")], self.CHAT), "unpaired") == []

    def test_an_answer_must_follow_a_user(self) -> None:
        chat = turns("one?", "1")
        chat.append(chat[-1]._replace(content="2"))
        assert reasons(rows_of(None, [says("correct", "2")], chat), "unpaired") == ["prompt_not_user"]


class TestChats:
    def test_up_to_the_last_assistant_turn(self) -> None:
        derived = rows_of(None, (), turns("one?", "1", "two?"))
        assert values(derived, "sft")[0]["messages"] == (("user", "one?"), ("assistant", "1"))
        assert [row.prompt[-1] for row in derived.rows if row.set_name == "prompts"] == [("user", "two?")]

    @pytest.mark.parametrize(
        ("chat", "reason"),
        [
            (turns("one?"), "no_assistant_turn"),
            (turns("one?", None), "empty_content"),
            (turns(" \n", "1"), "empty_content"),
            (turns("one?", "1")[1:], "no_user_turn"),
            ([], "no_assistant_turn"),
        ],
    )
    def test_what_is_no_conversation(self, chat: Any, reason: str) -> None:
        assert reasons(rows_of(None, (), chat), "sft") == [reason]

    @pytest.mark.parametrize("node", [None, "nobody"])
    def test_an_incorrect_verdict_that_names_nothing(self, node: str | None) -> None:
        assert reasons(rows_of(AB, [says("incorrect", node)]), "sft") == ["unattributed_incorrect"]
        assert reasons(rows_of(AB, [says("incorrect", node), says("correct", node)]), "sft") == []

    @pytest.mark.parametrize("answer", ["text of s3", "text of s1\ntext of s2\n\n text of s3"])
    def test_an_answer_that_is_an_unclean_path(self, answer: str) -> None:
        chat = turns(QUESTION, answer)
        assert reasons(rows_of(STEPS, [says("incorrect", "s2")], chat), "sft") == ["answer_incorrect"]
        assert reasons(rows_of(STEPS, [act("prune", "s1", actor="agent:x")], chat), "sft") == ["answer_incorrect"]
        assert reasons(rows_of(STEPS, [says("correct", "s2")], chat), "sft") == []


class TestTurn:
    CHAT = turns("first?", "an answer to the first question", "second?", "an answer to the second question", "third?")
    ACTS = (act("prune", "b", at=10, over="a"),)

    def prompt(self, root: str, acts: Any = ACTS, chat: Any = CHAT) -> list[str]:
        graph = tree(a="q", b="q")
        graph["nodes"]["q"]["content"] = root
        return [row.prompt[-1][1] for row in rows_of(graph, acts, chat).rows if row.set_name == "preferences"]

    def test_the_turn_whose_text_is_the_root(self) -> None:
        assert self.prompt(" first?\n") == ["first?"]
        assert self.prompt("second?") == ["second?"]

    def test_else_the_last_turn_at_the_first_act(self) -> None:
        assert self.prompt("a plan") == ["third?"]
        assert self.prompt("a plan", [self.ACTS[0]._replace(created_at_us=2_000_000)]) == ["second?"]

    def test_else_the_turn_before_the_answer_it_holds(self) -> None:
        early = [self.ACTS[0]._replace(created_at_us=-1)]
        graph = tree(a="q", b="q")
        graph["nodes"]["q"]["content"], graph["nodes"]["a"]["content"] = "a plan", "an answer to the second question"
        derived = rows_of(graph, early, self.CHAT)
        assert [row.prompt[-1][1] for row in derived.rows if row.set_name == "preferences"] == ["second?"]

    def test_else_there_is_no_turn(self) -> None:
        derived = rows_of(tree(a="q", b="q") | {"x": 1}, [self.ACTS[0]._replace(created_at_us=-1)], turns("other?"))
        assert reasons(derived, "preferences") == ["ambiguous_turn"]

    def test_a_question_asked_twice_is_the_last_one_before_the_act(self) -> None:
        chat = turns("same?", "1", "same?", "2")
        assert self.prompt("same?", [self.ACTS[0]._replace(created_at_us=1_000_000)], chat) == ["same?"]
        derived = rows_of(None, (), chat)
        assert len(derived.rows[0].prompt) == 3

    def test_an_answer_in_its_own_prompt(self) -> None:
        graph = tree(a="q", b="q")
        graph["nodes"]["q"]["content"] = "third?"
        graph["nodes"]["a"]["content"] = "an answer to the first question"
        derived = rows_of(graph, self.ACTS, self.CHAT)
        assert reasons(derived, "preferences") == ["answer_in_prompt"]


class TestInject:
    def test_an_unknown_node_is_new_and_has_no_parent(self) -> None:
        derived = rows_of(STEPS, [act("inject", "h", content="new"), says("correct", "h", at=11)])
        assert values(derived, "unpaired")[0]["completion"] == (("assistant", "new"),)

    def test_a_known_node_with_other_content_is_the_parent(self) -> None:
        derived = rows_of(STEPS, [act("inject", "s1", content="new"), says("correct", "inject-0", at=11)])
        assert values(derived, "unpaired")[0]["completion"] == (("assistant", "text of s1\nnew"),)

    def test_a_known_node_with_the_same_content_is_itself(self) -> None:
        acts = [says("correct", "s1"), says("correct", "s2"), act("inject", "s3", content=" text of s3")]
        assert values(rows_of(STEPS, acts), "stepwise")[0]["labels"] == [True, True, True]

    @pytest.mark.parametrize("content", ["", "  ", None, "other words"])
    def test_a_conflict_marks_nothing(self, content: str | None) -> None:
        acts = [says("correct", "s1"), says("correct", "s2"), act("inject", "s3", content=content, parent_id="s2")]
        derived = rows_of(STEPS, acts)
        assert values(derived, "stepwise")[0]["labels"] == [True, True]
        assert "inject_conflict" in reasons(derived, "preferences")

    def test_an_empty_inject_makes_no_node(self) -> None:
        one = session(STEPS, [act("inject", "new", content=" ", parent_id="s2")])
        assert "new" not in replay(one).last.states
        assert "inject_conflict" in reasons(training_rows(one), "preferences")

    def test_replaces_alone_gives_the_parent(self) -> None:
        acts = [act("prune", "s2"), act("inject", "h", content="better", replaces="s2")]
        assert pairs(rows_of(STEPS, acts)) == [("h", "s2", "inject_over_pruned")]


class TestReplacedGraphs:
    CHAT = turns("first?", "1", "second?", "2")

    def graph(self, question: str, **texts: str) -> dict[str, Any]:
        nodes = {n: {"content": text, "parent": "q"} for n, text in texts.items()}
        return {"nodes": {"q": {"content": question}, **nodes}}

    def test_a_verdict_counts_on_the_graph_it_was_given_on(self) -> None:
        first, second = self.graph("first?", a="one", b="uno"), self.graph("second?", a="two", b="due")
        acts = [
            says("correct", "a", at=1),
            says("incorrect", "b", at=1),
            snapshot(first, at=2),
            says("incorrect", "a", at=3),
        ]
        derived = rows_of(second, acts, self.CHAT)
        row = values(derived, "preferences")
        assert [(r["chosen"][0][1], r["rejected"][0][1]) for r in row] == [("one", "uno")]
        labels = {r["completion"][0][1]: r["label"] for r in values(derived, "unpaired")}
        assert labels == {"one": True, "uno": False, "two": False}
        assert len({r.row_id for r in derived.rows}) == len(derived.rows)

    def test_a_later_verdict_on_the_same_node_reaches_the_older_graph(self) -> None:
        first, second = self.graph("first?", a="one", b="uno"), self.graph("first?", a="one", b="other")
        acts = [
            says("correct", "a", at=1),
            says("incorrect", "b", at=1),
            snapshot(first, at=2),
            says("incorrect", "a", at=3),
        ]
        assert pairs(rows_of(second, acts, self.CHAT)) == []

    def test_what_both_graphs_say_is_said_once(self) -> None:
        first, second = self.graph("first?", a="one", b="uno"), self.graph("first?", a="one", c="neu")
        acts = [says("correct", "a", at=1), says("incorrect", "b", at=1), snapshot(first, at=2)]
        assert [r["node_id"] for r in values(rows_of(second, acts, self.CHAT), "unpaired")] == ["a", "b"]


class TestMessageTrees:
    GRAPH: ClassVar = {
        "id": "u1", "role": "user", "text": QUESTION,
        "children": [
            {"id": "a1", "role": "assistant", "text": "42", "children": [
                {"id": "u2", "role": "user", "text": "Sure?", "children": [
                    {"id": "a2", "role": "assistant", "text": "Yes."},
                    {"id": "a3", "role": "assistant", "text": "No."},
                ]},
            ]},
            {"id": "a4", "role": "assistant", "text": "41"},
        ],
    }  # fmt: skip

    def test_a_node_is_a_turn(self) -> None:
        acts = [act("rank", n, rank=i) for i, n in enumerate(("a2", "a3", "a1", "a4"))]
        rows = [r for r in rows_of(self.GRAPH, acts).rows if r.set_name == "preferences"]
        prompts = {r.values["chosen"][0][1]: [content for _, content in r.prompt] for r in rows}
        assert prompts == {"Yes.": [QUESTION, "42", "Sure?"], "42": [QUESTION]}

    def test_turns_are_no_steps(self) -> None:
        assert values(rows_of(self.GRAPH, [says("correct", "a1")]), "stepwise") == []


def test_ids_of_rows_do_not_depend_on_content() -> None:
    other = json.loads(json.dumps(AB))
    other["nodes"]["a"]["content"] = "other words"
    acts = [says("correct", "a"), says("incorrect", "b")]
    assert [r.row_id for r in rows_of(AB, acts).rows] == [r.row_id for r in rows_of(other, acts).rows]
    assert row_id("sft", "u", ["a", "b"]) != row_id("sft", "u", ["ab"])
    assert row_id("sft", "u", ["a"]) != row_id("sft", "u", ["a"], epoch=1)


def test_a_cycle_ends_nothing() -> None:
    graph = {"nodes": [{"id": n, "content": n} for n in "abc"], "edges": [["a", "b"], ["b", "a"], ["b", "c"]]}
    derived = rows_of(graph, [says("correct", "c"), says("incorrect", "a")])
    assert values(derived, "unpaired") == []
    assert reasons(derived, "stepwise") == ["cycle"]


def test_a_large_graph_is_no_recursion_and_no_square() -> None:
    graph = tree(**{f"n{i}": f"n{i - 1}" if i else "q" for i in range(3000)})
    derived = training_rows(session(graph, [says("correct", f"n{i}") for i in range(3000)]))
    assert [len(row["labels"]) for row in values(derived, "stepwise")] == [3000]


def test_only_the_sets_asked_for() -> None:
    everything = training_rows(session(AB, [says("correct", "a"), says("incorrect", "b")]))
    for name in ("sft", "preferences", "unpaired", "stepwise", "prompts"):
        asked = training_rows(session(AB, [says("correct", "a"), says("incorrect", "b")]), sets=(name,))
        assert list(asked.rows) == [row for row in everything.rows if row.set_name == name]
        assert {reject.set_name for reject in asked.rejects} <= {name}


def test_chats_are_rejected_where_a_message_is_blank() -> None:
    with pytest.raises(Exception, match="empty_content"):
        chat_of(turns("hi", "\u2003"))


@pytest.mark.realdata
def test_edge_cases_give_what_they_expect() -> None:
    records, data = zip(*real_records("edge_cases"), strict=True)
    checked = Counter[str]()
    for one, original in zip(as_sessions(records), data, strict=True):
        derived = training_rows(one)
        assert {row.set_name for row in derived.rows} | {reject.set_name for reject in derived.rejects} == {
            "sft", "preferences", "unpaired", "stepwise", "prompts",
        }  # fmt: skip
        expect = original["metadata"].get("expect") or {}
        if "pairs" in expect:
            assert sorted([a, b] for a, b, _ in pairs(derived)) == sorted(expect["pairs"]), original["metadata"]["case"]
        if "stepwise" in expect:
            assert [row["labels"] for row in values(derived, "stepwise")] == expect["stepwise"]
        checked.update(expect.keys())
    assert checked == {"pairs": 11, "stepwise": 2}


@pytest.mark.realdata
def test_real_sessions_give_the_known_counts() -> None:
    records, _ = zip(*real_records("sessions"), strict=True)
    counts = Counter[str]()
    for one in as_sessions(records):
        for row in training_rows(one).rows:
            counts[str(row.values.get("pair_kind", row.set_name))] += 1
    assert counts == {
        "sft": 4478, "prompts": 6836, "unpaired": 7433, "stepwise": 6336,
        "inject_over_pruned": 2542, "survivor_over_pruned": 805, "verdict_order": 135, "rank": 312,
    }  # fmt: skip


class TestRegeneratedAnswers:
    """A verdict never labels a message that is newer than the verdict."""

    @pytest.mark.parametrize(("judged_at", "labels", "n_sft"), [(0, [], 1), (5, [False], 0)])
    def test_a_verdict_counts_only_for_the_answer_that_was_there(
        self, judged_at: int, labels: list[bool], n_sft: int
    ) -> None:
        derived = training_rows(session(None, [act("feedback", "m1", at=judged_at, says="incorrect")]))
        assert [row["label"] for row in values(derived, "unpaired")] == labels
        assert len(values(derived, "sft")) == n_sft
