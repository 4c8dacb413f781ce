"""What a failed record says went wrong: the line of the exception, its type, and where it was raised.

`stderr` is the message of an exception (`Type: text`) beside its `traceback`, or what a program wrote.

- Of a chain it is the exception that came out, not one before it; of an exception group also what is in it.
- A message of several lines, a note, or a traceback that a message quotes is not taken for the exception.
- Of a program's text it is the last traceback in it, else the last line; unless it begins with an exception's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provd.common.record import Record

#: Characters of a headline; the record has all of it.
HEADLINE_MAX = 500

#: Members of an exception group that a headline names.
_MEMBERS_NAMED = 3

_HEADER = "Traceback (most recent call last):"
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)

#: `  File "train.py", line 7, in step`; that of a syntax error names no function.
_FRAME = re.compile(r'  File "(.*)", line (\d+)(?:, in .*)?$')

#: `module.Type: text`, or the type alone.
_EXCEPTION = re.compile(r"([^\W\d](?:[\w.]|<locals>)*)(?::(?: (.*))?)?$")

#: A type, by its name, where no traceback says that it is one.
_NAMED = re.compile(r"((?:[^\W\d]\w*\.)*\w*(?:Error|Exception|Group|Exit|Interrupt))(?::|$)", re.MULTILINE)

#: A group's lines have a margin; such lines stand between its members, and after the last.
_MARGIN = re.compile(r" +[|+] ?")
_MEMBER = re.compile(r" +\+(?:-\+)?-{16}(?: \S+ |-{4})-{16}$")

#: The end of the traceback that another process has handed over as the text of a cause.
_HANDED_OVER = '"""'


@dataclass(frozen=True, slots=True)
class Failure:
    """`headline` is one line. Where they are known: `exception`, the type with its module, and `frame`, as `train.py:7`."""

    headline: str
    exception: str | None = None
    frame: str | None = None


@dataclass(frozen=True, slots=True)
class _Raised:
    """One exception of a formatted traceback, with the members of a group."""

    exception: str
    text: str
    frame: str | None
    members: tuple[_Raised, ...] = ()

    @property
    def name(self) -> str:
        return self.exception.rpartition(".")[2]

    @property
    def line(self) -> str:
        return f"{self.name}: {self.text}" if self.text else self.name


def read_failure(record: Record) -> Failure | None:
    """How a task or a workflow failed; None where its record does not say."""
    said, traceback = _text(record.get("stderr")), _text(record.get("traceback"))
    raised = _came_out(traceback, said)
    if raised is not None:
        return _failure(raised, said)
    if not said:
        return None
    # An exception's message without a traceback, or with one that is no help.
    if traceback or _NAMED.match(said[:HEADLINE_MAX]):
        return Failure(_one_line(said), _exception_of(said))
    return _written(said)


def _text(value: object) -> str:
    return value if isinstance(value, str) and value.strip() else ""


def _one_line(text: str) -> str:
    line = " ".join(text[: 4 * HEADLINE_MAX].split())
    return line if len(line) <= HEADLINE_MAX else line[: HEADLINE_MAX - 1] + "…"


def _exception_of(said: str) -> str | None:
    told = _told(said)
    return told[1] if told else None


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip()


def _failure(raised: _Raised, said: str = "") -> Failure:
    headline = said if said and _agreement(raised, _told(said)) else raised.line
    exception, frame = raised.exception, raised.frame
    if raised.members:
        shown = ", ".join(member.line for member in raised.members[:_MEMBERS_NAMED])
        headline = f"{headline}: {shown}"
        exception += f"[{', '.join(sorted({member.exception for member in raised.members}))}]"
        frame = next((member.frame for member in raised.members if member.frame), frame)
    return Failure(_one_line(headline), exception, frame)


def _written(text: str) -> Failure:
    """What a program wrote."""
    lines = text.splitlines()
    headers = [number for number, line in enumerate(lines) if _is_header(line)]
    raised = _read_block(lines[headers[-1] :]) if headers else None
    if raised is not None:
        return _failure(raised)
    last = next(line for line in reversed(lines) if line.strip())
    named = _NAMED.match(last.strip()[:HEADLINE_MAX])
    return Failure(_one_line(last), named[1] if named else None)


def _is_header(line: str) -> bool:
    return line.rstrip() == _HEADER or line.startswith("  + Exception Group " + _HEADER)


def _came_out(traceback: str, said: str) -> _Raised | None:
    """The exception that a recorded traceback ends with.

    `said`, its own message, tells it from what the message quotes; it is the last one where they do not agree.
    """
    raised = list(_chain(traceback.splitlines()))
    if not raised:
        return None
    told = _told(said)
    agreement, place = max((_agreement(one, told), place) for place, one in enumerate(raised))
    if traceback.startswith("…") and not agreement:
        return None  # its beginning was cut off: this may be a line of a message
    return raised[place]


def _told(said: str) -> re.Match[str] | None:
    """The type and the text in the beginning of a message."""
    return _EXCEPTION.match(_first_line(said[: 4 * HEADLINE_MAX]))


def _agreement(raised: _Raised, told: re.Match[str] | None) -> int:
    """How well an exception fits its message: not at all, by its type, by its text too (Python may add a hint)."""
    if told is None or told[1].rpartition(".")[2] != raised.name:
        return 0
    return 2 if raised.text.startswith(told[2] or "") else 1


def _chain(lines: Sequence[str]) -> Iterator[_Raised]:
    """The exceptions of a chain, in the order in which they were raised."""
    start, remote = 0, None
    for number, line in enumerate([*lines, _CHAINED[0]]):
        if line not in _CHAINED:
            continue
        block = lines[start:number]
        raised = _read_block(block, remote)
        if raised is not None:
            yield raised
        remote = _frame_handed_over(block)
        start = number + 1


def _read_block(lines: Sequence[str], frame: str | None = None) -> _Raised | None:
    """One exception, and what is in it where it is a group; `frame` is where it was raised, if that is known."""
    first = next((line for line in lines if line.strip()), "")
    if not _MARGIN.match(first):
        return _read_plain(lines, frame)
    pieces: list[list[str]] = [[]]
    for line in lines:
        if _MEMBER.match(line):
            pieces.append([])
        else:
            pieces[-1].append(_MARGIN.sub("", line, count=1))
    group, *members = pieces
    raised = _read_plain(group, frame)
    if raised is None:
        return None
    read = (list(_chain(member)) for member in members)
    return _Raised(raised.exception, raised.text, raised.frame, tuple(found[-1] for found in read if found))


def _read_plain(lines: Sequence[str], frame: str | None) -> _Raised | None:
    known = frame
    for number, line in enumerate(lines):
        at = _FRAME.match(line)
        if at:
            frame = known or f"{at[1]}:{at[2]}"
        elif line.strip() and not line.startswith(("  ", "…")) and not line.endswith(_HEADER):
            found = _EXCEPTION.match(line.rstrip())
            return (
                _Raised(found[1], found[2] or _next_line(line, lines[number + 1 :]), frame) if found else None
            )
    return None


def _next_line(line: str, rest: Sequence[str]) -> str:
    """The text of a message that begins with an empty line."""
    return next((text.strip() for text in rest if text.strip()), "") if line.rstrip().endswith(":") else ""


def _frame_handed_over(lines: Sequence[str]) -> str | None:
    """Where an exception was raised in the process that it came from."""
    written = [line for line in lines if line.strip()]
    if not written or written[-1].strip() != _HANDED_OVER:
        return None
    frames = [at for at in map(_FRAME.match, written) if at]
    return f"{frames[-1][1]}:{frames[-1][2]}" if frames else None
