"""A story of every kind of deliberation, and the log that has them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.witness_formats import Document, LogKey
from tests.witness_log import Log
from tests.witness_story import Story, decided, undecided

OPTIONS = ["yes", "no", "weekends only"]


def asked(story: Story, endings: Sequence[tuple[str, str, Any]], *, text: bool = False) -> None:
    """Call these agents, all at once, and let them end so, the last one first."""
    story.start([agent for agent, _, _ in endings])
    for agent, _, _ in endings:
        story.call(agent)
    for agent, state, answer in reversed(endings):
        story.end_agent(agent, state, answer, text=text and state == "answered")


def choice(story_id: str = "choice", *, rule: Document | None = None) -> Story:
    """Seven agents and three options, with failures, a retry and one that never got called; decided."""
    story = Story(story_id)
    story.accept(
        [f"a-{n}" for n in range(8)],
        answer={"kind": "choice", "options": OPTIONS},
        rule=rule or {"kind": "plurality", "fraction": None},
    )
    story.start([f"a-{n}" for n in range(8)])
    for n in range(7):
        story.call(f"a-{n}")
    story.end_agent("a-4", "abstained")
    story.end_agent("a-3", "answered", 0)
    story.call("a-6", attempt=2)
    story.end_agent("a-0", "answered", 2)
    story.end_agent("a-1", "answered", 2)
    story.end_agent("a-2", "answered", 1)
    story.end_agent("a-5", "invalid")
    story.end_agent("a-6", "answered", 2, attempt=2)
    story.end_agent("a-7", "timed_out", attempt=0)
    story.end(
        "completed",
        decided(
            "weekends only",
            {"yes": 1, "no": 1, "weekends only": 3},
            rule="plurality",
            margin=2,
            percentage=40.0,
            positions=[("no", ["a-2"]), ("yes", ["a-3"])],
            agreeing=["plurality"],
            flip=2,
        ),
    )
    return story


def verdict(story_id: str = "verdict") -> Story:
    """Four agents, of whom two say yes: enough for a threshold of a half."""
    story = Story(story_id)
    story.accept(
        ["v-0", "v-1", "v-2", "v-3"],
        answer={"kind": "verdict"},
        rule={"kind": "threshold", "fraction": 0.5},
        context=None,
    )
    asked(
        story,
        [
            ("v-0", "answered", "yes"),
            ("v-1", "answered", "yes"),
            ("v-2", "answered", "no"),
            ("v-3", "throttled", None),
        ],
    )
    story.end(
        "completed",
        decided(
            "yes",
            {"yes": 2, "no": 1},
            rule="threshold",
            margin=1,
            percentage=33.3,
            positions=[("no", ["v-2"])],
            agreeing=["threshold", "plurality"],
            flip=1,
        ),
    )
    story.follow_up("recounted", rule={"kind": "plurality"})
    story.follow_up("resolved", answer="yes")
    return story


def tie(story_id: str = "tie") -> Story:
    """Two against two."""
    story = Story(story_id)
    story.accept(
        ["t-0", "t-1", "t-2", "t-3"],
        answer={"kind": "choice", "options": OPTIONS},
        rule={"kind": "plurality"},
        quorum=1.0,
    )
    asked(story, [(f"t-{n}", "answered", n % 2) for n in range(4)])
    story.end(
        "completed",
        undecided(
            "tied",
            {"yes": 2, "no": 2, "weekends only": 0},
            rule="plurality",
            margin=0,
            positions=[("yes", ["t-0", "t-2"]), ("no", ["t-1", "t-3"])],
            flip=1,
        ),
    )
    return story


def inquorate(story_id: str = "inquorate") -> Story:
    """One of three took part."""
    story = Story(story_id)
    story.accept(["i-0", "i-1", "i-2"], answer={"kind": "verdict"}, rule={"kind": "threshold"}, quorum=0.5)
    asked(story, [("i-0", "answered", "no"), ("i-1", "failed", None), ("i-2", "over_budget", None)])
    story.end("inquorate", None, cause="fewer agents took part than the quorum asks for")
    return story


def cancelled(story_id: str = "cancelled") -> Story:
    """Stopped while one had answered and one was still waiting."""
    story = Story(story_id)
    story.accept(["c-0", "c-1"], answer={"kind": "verdict"}, rule={"kind": "threshold"})
    story.start(["c-0", "c-1"])
    story.call("c-0")
    story.end_agent("c-0", "answered", "yes")
    story.end_agent("c-1", "cancelled", attempt=0)
    story.end("cancelled", None, cause="cancelled on request")
    return story


def erased(story_id: str = "erased") -> Story:
    """A median whose texts were erased afterwards."""
    story = Story(story_id)
    story.accept(
        ["e-0", "e-1", "e-2", "e-3"], answer={"kind": "score", "min": 0.0, "max": 10.0}, rule={"kind": "median"}
    )
    asked(story, [("e-0", "answered", 1.5), ("e-1", "answered", 7.0), ("e-2", "answered", 8), ("e-3", "halted", None)])
    story.end(
        "completed",
        decided(
            7.0,
            {"1.5": 1, "7": 1, "8": 1},
            rule="median",
            margin=None,
            percentage=66.7,
            positions=[("below 4.25", ["e-0"]), ("above 7.5", ["e-2"])],
            agreeing=["median"],
            spread=3.25,
        ),
    )
    story.disclosures.clear()
    story.follow_up("erased")
    return story


def free_text(story_id: str = "text") -> Story:
    """Answers in free text, counted in the clusters that the outcome names."""
    story = Story(story_id)
    story.accept(["x-0", "x-1"], answer={"kind": "text"}, rule={"kind": "synthesis"})
    asked(story, [("x-0", "answered", "Plant trees."), ("x-1", "abstained", None)], text=True)
    outcome = decided("cluster 1", {"cluster 1": 1}, rule="synthesis", margin=1, percentage=0.0, agreeing=["synthesis"])
    outcome["synthesis"] = {
        "method": "tf-idf",
        "clusters": [{"agents": ["x-0"], "representative": 0}],
        "claims": [{"cluster": 0, "source": 0, "sentence": 0, "agents": [0]}],
    }
    story.end("completed", outcome)
    return story


def seventy_two(story_id: str = "large") -> Story:
    """Seventy-two agents, of whom seventy answer alike."""
    story = Story(story_id)
    agents = [f"archon-{n}" for n in range(72)]
    story.accept(agents, answer={"kind": "choice", "options": OPTIONS}, rule={"kind": "plurality"})
    asked(story, [(agent, "answered", int(place > 69)) for place, agent in enumerate(agents)])
    story.end(
        "completed",
        decided(
            "yes",
            {"yes": 70, "no": 2, "weekends only": 0},
            rule="plurality",
            margin=68,
            percentage=2.8,
            positions=[("no", ["archon-70", "archon-71"])],
            agreeing=["plurality", "threshold"],
            flip=35,
        ),
    )
    return story


def whole_log(key: LogKey | None = None) -> Log:
    """Every kind of deliberation, interleaved, with entries of the system between them."""
    return (
        Log(key)
        .add_system("key.added", key="a")
        .tell(choice(), verdict(), tie())
        .add_system("halt.set")
        .add_system("halt.cleared")
        .tell(inquorate(), cancelled())
        .tell(erased(), free_text())
        .add_system("restore.accepted")
    )
