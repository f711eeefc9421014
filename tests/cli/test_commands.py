"""Commands parse, call and print; what they do is a function of a library."""

import ast
from pathlib import Path

import pytest

CLI = Path(__file__).parents[2] / "cli"
LINES = 15


def decorated_as_command(function: ast.FunctionDef) -> bool:
    return any(".command(" in ast.unparse(decorator) + "(" for decorator in function.decorator_list)


COMMANDS = [
    pytest.param(node, id=f"{path.stem}-{node.name}")
    for path in sorted(CLI.glob("*.py"))
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and decorated_as_command(node)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_body_of_a_command_has_at_most_fifteen_lines(command: ast.FunctionDef) -> None:
    body = command.body[ast.get_docstring(command) is not None :]
    assert body[-1].end_lineno - body[0].lineno + 1 <= LINES  # type: ignore[operator]


def test_every_command_is_looked_at() -> None:
    assert len(COMMANDS) == 16
