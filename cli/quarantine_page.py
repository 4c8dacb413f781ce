"""The table of `provd quarantine list`, and the page of `provd quarantine show`."""

from __future__ import annotations

from collections.abc import Sequence

from provd.cli import human, output
from provd.cli.output import Column
from provd.common.errors import FrameError
from provd.common.record import Message, Record
from provd.common.wire import Flaw, Frame
from provd.query.quarantine import Piece

#: Characters of an id in the list; enough to name a piece.
ID_SHOWN = 12

#: Bytes that the page shows, and bytes in a line of them; the page fits 80 columns.
_DUMPED = 256
_LINE = 16

#: Messages that the page names one by one.
_MESSAGES_SHOWN = 10


def print_pieces(pieces: Sequence[Piece]) -> None:
    """The list."""
    wide = output.width() >= output.WIDE
    columns = [
        Column("piece", firm=True),
        Column(f"received ({human.zone()})" if wide else human.zone(), firm=True),
        Column("run", folds=True),
        *([Column("producer", folds=True)] if wide else []),
        Column("seqs", right=True, firm=True),
        Column("size", right=True, firm=True),
        Column("reason", folds=True),
    ]
    rows = []
    for piece, received in zip(pieces, human.moments(piece.document.get("received_at") for piece in pieces)):
        document = piece.document
        size = document.get("size")
        rows.append(
            [
                piece.piece_id[:ID_SHOWN],
                received,
                document.get("workflow_id", ""),
                *([document.get("producer_id", "")] if wide else []),
                piece.seqs,
                human.size(size) if isinstance(size, int) else "",
                human.cell(document.get("reason")),
            ]
        )
    output.print_table(columns, rows)


def piece_document(piece: Piece) -> Record:
    """The piece as JSON has it, with what of it can be read."""
    return piece.to_document() | {"decoded": _decoded(piece)}


def print_piece(piece: Piece) -> None:
    """The page."""
    document, raw = piece.document, piece.raw or b""
    output.print_fields(
        [
            ("piece", piece.piece_id),
            ("reason", str(document.get("reason", ""))),
            ("received", human.moment(document.get("received_at"))),
            ("run", document.get("workflow_id", "")),
            ("producer", document.get("producer_id", "")),
            ("seqs", piece.seqs),
            ("stream", document.get("stream", "")),
            ("entry", document.get("entry_id", "")),
            (
                "size",
                f"{human.size(len(raw))} ({len(raw):,} bytes)" if len(raw) >= 1024 else f"{len(raw)} bytes",
            ),
        ]
    )
    output.print_line("\nbytes", style="bold")
    output.print_line("\n".join(_dump(raw[:_DUMPED])))
    if len(raw) > _DUMPED:
        output.print_line(f"… {len(raw) - _DUMPED:,} more: --json has them all", style="dim")
    _print_decoded(piece)


def _dump(data: bytes) -> list[str]:
    lines = []
    for start in range(0, len(data), _LINE):
        part = data[start : start + _LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):<{3 * _LINE - 1}}  {text}")
    return lines


def _read(piece: Piece) -> Frame | str:
    """The piece as a frame, or why it is none."""
    from provd.consumer.pieces import read_piece

    try:
        return read_piece(piece.document, piece.raw or b"")[0]
    except FrameError as error:
        return str(error)


def _decoded(piece: Piece) -> Record:
    frame = _read(piece)
    if isinstance(frame, str):
        return {"error": frame}
    return {
        "messages": [{"kind": message.kind.value, **message.record} for message in frame.messages],
        "flaws": [
            {"first_seq": flaw.first_seq, "last_seq": flaw.last_seq, "reason": flaw.reason}
            for flaw in frame.flaws
        ],
    }


def _print_decoded(piece: Piece) -> None:
    output.print_line("\nread by this version", style="bold")
    frame = _read(piece)
    if isinstance(frame, str):
        output.print_line(frame, style="red")
        return
    for message in frame.messages[:_MESSAGES_SHOWN]:
        output.print_line(_message_line(message))
    if len(frame.messages) > _MESSAGES_SHOWN:
        output.print_line(
            f"and {human.many(len(frame.messages) - _MESSAGES_SHOWN, 'message')} more", style="dim"
        )
    for flaw in frame.flaws:
        output.print_line(_flaw_line(flaw), style="red")
    if frame.messages:
        output.print_line("`provd quarantine retry` tries to store what can be read", style="dim")


def _message_line(message: Message) -> str:
    record = message.record
    name = record.get("activity_id") or record.get("name") or ""
    parts = [f"seq {message.seq}", message.kind.value, str(name), str(record.get("status", ""))]
    values = human.pairs(record.get("used"))
    return "  ".join(part for part in (*parts, values) if part)


def _flaw_line(flaw: Flaw) -> str:
    seqs = (
        f"seq {flaw.first_seq}"
        if flaw.first_seq == flaw.last_seq
        else f"seqs {flaw.first_seq}-{flaw.last_seq}"
    )
    return f"{seqs}  {flaw.reason}"
