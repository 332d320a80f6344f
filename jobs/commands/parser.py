"""argparse with near misses: every wrong use is a `UsageError`, and no option can be shortened."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pipelines.errors import UsageError, no_such


class Parser(argparse.ArgumentParser):
    """Parses a command line, or raises a `UsageError` that says what would be right."""

    def __init__(self, **settings: Any) -> None:
        # An abbreviation that works today means something else once a longer option is added.
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}. See: {self.prog} --help")

    def parse_known_args(  # type: ignore[override]  # of argparse's overloads only this is used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Arguments by name, and what was not understood.

        Raises:
            UsageError: an option is unknown, and the message offers the near miss; or a word is
                left over.
        """
        given = sys.argv[1:] if args is None else list(args)
        known = self._option_string_actions
        for name in self._own_options(given):
            # Before argparse, which first complains of what is missing.
            if name not in known:
                raise no_such("option", name, sorted(one for one in known if one.startswith("--")))
        understood, left = super().parse_known_args(given, namespace)
        if left:
            # Here, where the command is known whose help tells what it takes.
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return understood, left

    def _print_message(self, message: str, file: Any = None) -> None:
        # Of what cannot be written argparse says nothing.
        (file or sys.stderr).write(message)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        # Such as "$DAY" where DAY is not set: without the option something else would be done.
        if action.option_strings and not arg_string:
            self.error(
                f"{'/'.join(action.option_strings)} is empty: leave it out, or give it a value"
            )
        return super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # The one place where argparse sees both a wrong choice and the right ones.
        if action.choices is not None and value not in action.choices:
            kind = (action.metavar or action.dest) if not action.option_strings else action.dest
            raise no_such(str(kind).lower(), str(value), action.choices)

    def _own_options(self, given: Sequence[str]) -> list[str]:
        """Long options among the arguments that this parser, and no command's, must know."""
        if "-" not in self.prefix_chars:
            # It has no options: all of its words are another program's.
            return []
        names = []
        for argument in given:
            if argument == "--" or (self._subparsers and not argument.startswith("-")):
                break
            # What holds a space is a value, says argparse: SQL may begin with a comment.
            if argument.startswith("--") and " " not in argument:
                names.append(argument.partition("=")[0])
        return names
