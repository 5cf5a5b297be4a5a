"""A peer review: each answer is reviewed by a few others who do not know whose it is, and everybody answers once more."""

from __future__ import annotations

from dataclasses import replace

from domain.protocols.proceedings import Proceedings, everybody_answers, words_for
from domain.protocols.round_format import answer_label
from domain.protocols.round_plan import Asked, Brief, Exhibit, ExhibitKind, Purpose, RoundPlan

__all__ = ["labels_under_review", "next_in_peer_review", "purpose_in_peer_review", "reviewers"]

_REVIEW, _REVISION = 1, 2


def next_in_peer_review(proceedings: Proceedings) -> RoundPlan | None:
    """The blind round, the reviews, the revision."""
    last = proceedings.last
    if last is None:
        return everybody_answers(proceedings)
    if last == _REVIEW - 1:
        return _review(proceedings)
    return _revision(proceedings) if last == _REVIEW else None


def reviewers(proceedings: Proceedings) -> dict[str, list[str]]:
    """By author who reviews its answer: nobody his own, everybody as many as review him.

    Those who answered stand in a ring that is drawn by lot, and each reviews the next few in it (a circulant design).
    """
    ring = proceedings.draw(proceedings.answered_in(0), "ring")
    each = min(proceedings.protocol.setting("reviewers_per_answer"), len(ring) - 1)
    return {
        author: [ring[(place - step) % len(ring)] for step in range(1, each + 1)] for place, author in enumerate(ring)
    }


def labels_under_review(proceedings: Proceedings) -> set[str]:
    """What the answers are called that are reviewed."""
    labels = _labels(proceedings)
    return {labels[author] for author in proceedings.answered_in(0)}


def purpose_in_peer_review(number: int) -> Purpose:
    """What that round is for."""
    return (Purpose.ANSWER, Purpose.REVIEW, Purpose.REVISE)[number]


def _labels(proceedings: Proceedings) -> dict[str, str]:
    drawn = proceedings.draw(proceedings.agents, "labels")
    return {agent_id: answer_label(place) for place, agent_id in enumerate(drawn)}


def _review(proceedings: Proceedings) -> RoundPlan:
    answers, labels = proceedings.answered_in(0), _labels(proceedings)
    by_reviewer: dict[str, list[str]] = {}
    for author, those in reviewers(proceedings).items():
        for reviewer in those:
            by_reviewer.setdefault(reviewer, []).append(author)
    form = proceedings.answers_in(_REVIEW)
    asked = []
    for reviewer in proceedings.agents:
        theirs = by_reviewer.get(reviewer)
        if not theirs:
            continue
        ordered = proceedings.draw(theirs, "order", reviewer)
        most = words_for(len(ordered))
        exhibits = tuple(
            proceedings.exhibit(ExhibitKind.ANSWER, labels[author], answers[author], most=most) for author in ordered
        )
        expected = replace(form, options=tuple(labels[author] for author in ordered))
        asked.append(Asked(reviewer, expected, Brief(Purpose.REVIEW, proceedings.mark, exhibits=exhibits)))
    return RoundPlan(_REVIEW, Purpose.REVIEW, form, tuple(asked))


def _revision(proceedings: Proceedings) -> RoundPlan:
    """Everybody answers once more, whoever was not heard in the blind round as well, and sees how others found its answer."""
    answers, labels, given = proceedings.answered_in(0), _labels(proceedings), reviewers(proceedings)
    reviews = proceedings.took_part_in(_REVIEW)
    asked = []
    for agent_id in proceedings.agents:
        exhibits: list[Exhibit] = []
        heard = proceedings.draw((each for each in given.get(agent_id, ()) if each in reviews), "reviews", agent_id)
        most = words_for(len(heard) + 1)
        for place, reviewer in enumerate(heard):
            review = reviews[reviewer]
            label = f"reviewer {place + 1}, {_finding(review.answer, labels[agent_id])}"
            exhibits.append(proceedings.exhibit(ExhibitKind.REVIEW, label, review, most=most, has_answer=False))
        figures: tuple[tuple[str, str], ...] = ()
        if agent_id in answers:
            own = proceedings.exhibit(ExhibitKind.OWN, "your answer so far", answers[agent_id], most=most)
            exhibits.append(own)
            figures = (("the reviewers knew your answer as", labels[agent_id]),)
        brief = Brief(Purpose.REVISE, proceedings.mark, figures, tuple(exhibits))
        asked.append(Asked(agent_id, proceedings.question, brief))
    return RoundPlan(_REVISION, Purpose.REVISE, proceedings.question, tuple(asked))


def _finding(approved: object, label: str) -> str:
    if not isinstance(approved, tuple):
        return "who abstained"
    return "who finds that it holds up" if label in approved else "who finds that it does not hold up"
