"""Progress: true counts while it goes on, and nothing where nobody watches."""

import logging

from rich.console import Console

from api.cli.progress import LineProgress, LiveProgress, QuietProgress, progress_on
from domain.models.question import AnswerFormat, AnswerKind
from tests.unit.api.cli.samples import Said, Sample, answers, choice, console, ended, printed, widest

SAMPLE = ended(answers(("weekends only", 3), ("yes", 2)))


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def under_way(target: Console, sample: Sample = SAMPLE, *, clock: Time | None = None) -> LiveProgress:
    progress = LiveProgress(target, clock=clock or Time())
    progress.begin({**sample.document, "status": "queued"})
    progress.note({"type": "round.started", "agents": ["a"] * 72})
    for number in range(5):
        progress.note({"type": "agent.ended", "agent_id": f"archon-{number}", "state": "answered"})
    progress.note({"type": "agent.ended", "agent_id": "late", "state": "timed_out"})
    progress.hear(sample.outputs)
    return progress


def drawn(progress: LiveProgress, target: Console) -> str:
    target.print(progress.view())
    return printed(target)


def test_everyone_asked_is_either_counted_or_to_come() -> None:
    target = console()
    assert "5 answered, 1 timed out, 66 to come" in drawn(under_way(target), target)


def test_time_counts_from_the_acceptance() -> None:
    clock, target = Time(), console()
    clock.now = 100.0
    progress = under_way(target, clock=clock)
    clock.now = 103.2
    assert "running: 6 of 72 ended, 3.2 s" in drawn(progress, target)


def test_the_tally_so_far_has_every_option() -> None:
    text = drawn(under_way(target := console()), target)
    assert [line.split()[-3] for line in text.split("\n") if "%" in line] == ["2", "0", "3"]


def test_the_latest_voices_are_heard() -> None:
    text = drawn(under_way(target := console()), target)
    assert "archon-5: reason 2 for yes" in text
    assert "archon-1:" not in text


def test_estimates_have_a_median_so_far() -> None:
    sample = ended([Said(3.0, "r"), Said(5.0, "r")], answer=AnswerFormat(AnswerKind.NUMBER))
    assert "median so far 4 of 2 estimates" in drawn(under_way(target := console(), sample), target)


def test_before_the_acceptance_it_says_that_it_opens() -> None:
    target = console()
    assert "opening" in drawn(LiveProgress(target, clock=Time()), target)


def test_what_the_command_says_stands_in_the_drawing() -> None:
    progress = under_way(target := console())
    progress.say("cancelling")
    assert "cancelling: 6 of 72" in drawn(progress, target)


def test_hostile_voices_are_spelt_out_and_cut_to_the_width() -> None:
    sample = ended([Said("汽车" * 60, "\x1b[2J[red]" + "理由" * 200)] * 3, answer=choice(["汽车" * 60, "no"]))
    text = drawn(under_way(target := console(40), sample), target)
    assert "\x1b" not in text
    assert "\\x1b[2J[red]" in text
    assert widest(text) <= 40


def test_only_the_largest_of_fifty_options_are_drawn() -> None:
    options = [f"option {number}" for number in range(50)]
    text = drawn(under_way(target := console(), ended(answers((options[49], 2)), answer=choice(options))), target)
    assert text.count("%") == 8
    assert "option 49" in text


def test_a_live_drawing_is_wiped_away_in_the_end() -> None:
    target = console(terminal=True)
    with LiveProgress(target, clock=Time()) as progress:
        progress.begin(SAMPLE.document)
    assert printed(target).endswith("\x1b[2K\x1b[?25h") or printed(target).rstrip().endswith("\x1b[2K")


def test_a_log_that_is_set_up_meanwhile_stands_above_the_drawing() -> None:
    target = console(terminal=True)
    logger = logging.getLogger("test_progress")
    with LiveProgress(target, clock=Time()):
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        logger.warning("an agent timed out")
        logger.removeHandler(handler)
    assert "an agent timed out" in printed(target)


def test_a_dumb_terminal_gets_a_line_for_each_quarter() -> None:
    target = console()
    progress = LineProgress(target)
    progress.begin(ended(answers(("yes", 8))).document)
    progress.note({"type": "round.started", "agents": ["a"] * 8})
    for number in range(8):
        progress.note({"type": "agent.ended", "agent_id": str(number), "state": "answered"})
    assert printed(target).split("\n") == [
        "asking 8 agents",
        "2 of 8 ended: 2 answered, 6 to come",
        "4 of 8 ended: 4 answered, 4 to come",
        "6 of 8 ended: 6 answered, 2 to come",
        "8 of 8 ended: 8 answered, 0 to come",
        "",
    ]


def test_without_a_terminal_there_is_no_progress() -> None:
    assert isinstance(progress_on(None), QuietProgress)


def test_the_terminal_decides_what_is_drawn() -> None:
    assert isinstance(progress_on(Console(force_terminal=True, _environ={"TERM": "dumb"})), LineProgress)
    assert isinstance(progress_on(Console(force_terminal=True, _environ={"TERM": "xterm"})), LiveProgress)
