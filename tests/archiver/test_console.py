"""What people see is the text as it is: no markup, no control characters."""

from archiver.console import Console
from archiver.errors import TooManyRejectsError
from archiver.program import ExitCode, exit_code


def test_user_texts_in_a_table_are_no_markup(capsys):
    texts = ["[bold]x[/bold]", "ends in a backslash \\", "[/nothing open]", "bell\x07"]
    Console().table(("text",), [(text,) for text in texts])
    out = capsys.readouterr().out
    assert all(text in out for text in texts[:3])
    assert "\x07" not in out


def test_numbers_are_short(capsys):
    Console().table(("n",), [(0.61,), (82.0,), (0.0,)])
    assert capsys.readouterr().out.split() == ["n", "0.61", "82", "0"]


def test_too_many_rejects_is_a_failure_and_no_usage_error():
    assert exit_code(TooManyRejectsError("x")) == ExitCode.FAILED
