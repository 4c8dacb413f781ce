"""The border of the traced program: an error of provd's own costs a record, and nothing else (G1)."""

from __future__ import annotations

import pytest

from tests.streams import Script, Streams

PROGRAM = """
    import provd
    {fault}

    @provd.task
    def double(x):
        return 2 * x

    @provd.task
    def numbers(n):
        yield from range(n)

    @provd.task
    def fail():
        raise ValueError("no")

    with provd.workflow("w"):
        print(double(21), list(numbers(3)))
        try:
            fail()
        except ValueError as error:
            print(repr(error))
    print("done")
"""

FAULTS = {
    "begin": "import provd.producer.channel as c; c.Channel.begin = None",
    "end": "import provd.producer.channel as c; c.Channel.end = None",
    "fail": "import provd.producer.channel as c; c.Channel.fail = None",
    "values": "import provd.producer.signature as s; s.Signature.freeze = None",
    "workflow": "import provd.producer.producer as p; p.Producer.channel = None",
    "workflow-end": "import provd.producer.channel as c; c.Channel.close = None",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_our_own_is_told_once_and_the_program_runs(
    script: Script, streams: Streams, fault: str
) -> None:
    # Given a provd with something broken in it
    ended = script.run(PROGRAM.format(fault=FAULTS[fault]))

    # Then the program does what it would have done, and one line says that provd did not
    assert ended.returncode == 0
    assert ended.stdout == "42 [0, 1, 2]\nValueError('no')\ndone\n"
    assert ended.stderr.count("an error of provd's own cost a record") == 1
    assert ended.stderr.count("\n") == 1
