"""The shell of `nightshift sql`: statements of a person at a terminal, one after another."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from deltalake.exceptions import DeltaError
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer  # type: ignore[import-untyped]

from jobs.commands import tables
from jobs.commands.sql_memory import bounded
from jobs.lake import sql
from jobs.lake.sql import Session
from jobs.lake.tokens import Token, as_name, as_table, is_alias, is_ended, tokens
from jobs.night import message_of
from jobs.output import FORMATS, MOST_ON_TERMINAL, show, show_lines
from jobs.services.home import private_home
from pipelines.errors import NightshiftError, UsageError

if TYPE_CHECKING:
    from prompt_toolkit.document import Document
    from prompt_toolkit.key_binding import KeyPressEvent

    from pipelines.environment import Environment

HELP = """\
Statements end with a semicolon and may take several lines. Ctrl-C ends one that runs, Ctrl-D the
shell; TAB completes tables, columns and words of SQL.
  \\d             list the tables
  \\d TABLE       columns of a table, and what they mean
  \\timing        tell how long each statement takes, or no longer
  \\format FORM   print rows as table, csv or json
  \\i FILE        run the statements of a file
  \\?             this help
  \\q             leave
A table as it was: FROM flights.flights VERSION AS OF 12, TIMESTAMP AS OF '2026-11-25 08:00' (when
it was published), KNOWN AS OF '2013-02-04' (as the night of that day saw it)."""
_WORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "JOIN", "LEFT JOIN"),
    *("USING", "ON", "AS", "AND", "OR", "NOT", "NULL", "IN", "BETWEEN"),
    *("CASE", "WHEN", "THEN", "ELSE", "END", "DISTINCT", "UNION ALL", "WITH"),
    *("DESCRIBE", "SUMMARIZE", "USE"),
    *("SHOW TABLES", "VERSION AS OF", "TIMESTAMP AS OF", "KNOWN AS OF"),
)
_WORD = re.compile(r"[\w.\\\"]+")
_YOURS = "Yours, until you leave the shell."
_HISTORY = "sql_history"
_NO_SCHEMA = "main"
_PAGER = "less -S -F -X -R"
"""Lines are cut and not folded: the arrows move to the side. What fits the screen just stands."""


@dataclass(kw_only=True)
class Shell:
    """What a person has set, and the session of their statements."""

    environment: Environment
    session: Session
    form: str = "table"
    is_timed: bool = False
    page: Callable[[str], None] = field(default_factory=lambda: _page)
    """Shows a text to the person."""
    _seconds_read: float = 0.0
    """In which the person has read what is shown."""

    def obey(self, text: str) -> bool:
        """Do what a line says, a command of the shell or statements; False: the person leaves."""
        line = text.strip()
        if line.lower().rstrip(";") in ("exit", "quit", "\\q"):
            return False
        try:
            if line.startswith("\\") or line.lower() == "help":
                self._command(line)
            elif line:
                self._run(line)
        except NightshiftError as error:
            # It may quote a value of a row, which a stranger wrote.
            print(message_of(error), file=sys.stderr)
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
        except Exception as error:  # whatever it is, the person's session goes on
            print(f"Fault: {message_of(error)}", file=sys.stderr)
        return True

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        argument = rest.strip().rstrip(";")
        if name in ("\\?", "help"):
            print(HELP)
        elif name == "\\d" and argument:
            self._describe(argument)
        elif name in ("\\d", "\\dt"):
            known = tables.tables(self.environment, None)
            self._show(tables.TABLES, [*known, *self._own()])
        elif name == "\\timing":
            self.is_timed = not self.is_timed
            print(f"Timing is {'on' if self.is_timed else 'off'}.")
        elif name == "\\format":
            self._set_form(argument)
        elif name == "\\i":
            self._run(_read(argument))
        else:
            raise UsageError(f"No command '{name}'. \\? tells them all.")

    def _own(self) -> list[tuple[object, ...]]:
        """A row for each table that the person has made, by `tables.TABLES`."""
        unknown = [None] * (len(tables.TABLES) - 2)
        return [(name, *unknown, _YOURS) for name in self._own_tables()]

    def _own_tables(self) -> dict[str, dict[str, str]]:
        return self.session.own_tables(sql.tables(self.environment))

    def _describe(self, table: str) -> None:
        own = {_bare(name): columns for name, columns in self._own_tables().items()}
        columns = own.get(_bare(table))
        if columns is None:
            tables.print_description(self.environment, self._named(table), self.form)
        else:
            rows = [(column, kind.lower(), "") for column, kind in columns.items()]
            self._show(tables.COLUMNS, rows)

    def _named(self, table: str) -> str:
        """The table that a name means here: first one of the pipeline in use."""
        name = _bare(table)
        own = f"{self.session.schema}.{name}"
        return own if own in sql.tables(self.environment) else name

    def _set_form(self, form: str) -> None:
        if form not in FORMATS:
            raise UsageError(f"No format '{form}'. There are {', '.join(FORMATS)}.")
        self.form = form

    def _run(self, statements: str) -> None:
        started = time.monotonic()
        self._seconds_read = 0.0
        try:
            with bounded(self.session):
                for result in self.session.results(statements):
                    if result.is_plan and self.form == "table":
                        self._draw(result.rows)
                    else:
                        self._show(result.columns, result.rows)
        except KeyboardInterrupt:
            self.session.interrupt()
            raise
        if self.is_timed:
            print(f"{time.monotonic() - started - self._seconds_read:.3f} s")

    def _show(
        self,
        columns: Iterable[str],
        rows: Iterable[tuple[object, ...]],
    ) -> None:
        remaining = iter(rows)
        first = list(islice(remaining, MOST_ON_TERMINAL))
        text = io.StringIO()
        show(list(columns), first, self.form, text, is_seen=True)
        is_more = next(remaining, None) is not None
        number = f"the first {len(first)} rows" if is_more else _counted(len(first))
        hint = "; all of them: nightshift sql --output FILE" if is_more else ""
        self._let_read(f"{text.getvalue()}({number}{hint})\n")

    def _draw(self, plan: Iterable[tuple[object, ...]]) -> None:
        text = io.StringIO()
        show_lines(plan, text)
        self._let_read(text.getvalue())

    def _let_read(self, text: str) -> None:
        is_shown = time.monotonic()
        self.page(text)
        self._seconds_read += time.monotonic() - is_shown


def run(environment: Environment, run_id: str | None) -> int:
    """Ask for statements until the person leaves; returns the exit code 0.

    Args:
        environment: Whose lake is read. The history of the statements is kept in its home.
        run_id: See `jobs.lake.sql.results`.
    """
    with Session(environment, run_id) as session:
        shell = Shell(environment=environment, session=session)
        prompt = _prompt(environment, session)
        print("\\? tells what this shell knows, \\d lists the tables, Ctrl-D leaves.")
        while True:
            try:
                text = prompt.prompt(f"{_name(session)}=> ", prompt_continuation="   -> ")
            except KeyboardInterrupt:
                continue  # the line is given up
            except EOFError:
                return 0
            if not shell.obey(text):
                return 0


def is_whole(text: str) -> bool:
    """Whether a person has said all: a command of the shell, or statements with a semicolon."""
    line = text.strip()
    is_command = line.startswith("\\") or line.lower() in ("", "help", "exit", "quit")
    try:
        return is_command or is_ended(line)
    except UsageError:
        # Of what can be no statement the person is told when it is sent.
        return True


class TableCompleter(Completer):
    """Completes names of tables, of columns of the tables that the text names, and words of SQL."""

    def __init__(self, environment: Environment, session: Session | None = None) -> None:
        """Names are asked for when they are first needed.

        Args:
            environment: Whose tables they are.
            session: Whose pipeline in use needs no name; None: none is in use.
        """
        self._environment = environment
        self._session = session
        self._columns: dict[str, list[str]] = {}

    def get_completions(self, document: Document, _event: object) -> Iterator[Completion]:
        """What may follow the text before the cursor."""
        word = document.get_word_before_cursor(pattern=_WORD)
        names: list[str] = []
        # A store may be away, or a byte not be UTF-8: the line is there to be written further.
        with suppress(Exception):
            names.extend(self._names(document.text))
        for candidate in (*names, *_WORDS):
            if _bare(candidate).startswith(_bare(word)):
                yield Completion(candidate, start_position=-len(word))

    def _names(self, text: str) -> Iterator[str]:
        known = sql.tables(self._environment)
        in_use = f"{self._session.schema}." if self._session else f"{_NO_SCHEMA}."
        said = tokens(text)
        for name in sql.meant(f"{in_use} {text}", known):
            columns = self._columns_of(name)
            yield from columns
            for called in _called(name, said):
                yield from (f"{called}.{column}" for column in columns)
        own = self._session.own_tables(known) if self._session else {}
        words = {_bare(token.text) for token in said}
        for name, kinds in own.items():
            if _bare(name.rpartition(".")[2]) in words:
                yield from map(as_name, kinds)
        yield from own
        yield from map(as_table, known)
        in_schema = [name.removeprefix(in_use) for name in known if name.startswith(in_use)]
        yield from map(as_name, in_schema)

    def _columns_of(self, name: str) -> list[str]:
        if name not in self._columns:
            # A table that cannot be opened has nothing to offer.
            self._columns[name] = []
            with suppress(NightshiftError, DeltaError):
                columns, _ = sql.query(self._environment, f"FROM {as_table(name)} LIMIT 0")
                self._columns[name] = list(map(as_name, columns))
        return self._columns[name]


def _bare(name: str) -> str:
    """A name as it is compared: without quotes, in small letters."""
    return name.replace('"', "").lower()


def _called(table: str, said: Sequence[Token]) -> list[str]:
    """The names by which a text means a table: its own, and those that the text gives it."""
    bare = table.partition(".")[2]
    names = {table: None, bare: None}
    threes = zip(said, said[1:], said[2:], strict=False)
    for named, *after in threes:
        alias = after[after[0].word == "as"]
        if named.word == bare and is_alias(alias):
            names[alias.text] = None
    return list(names)


class _Kept(FileHistory):
    """Statements that the home keeps, as long as its disk has room."""

    def store_string(self, string: str) -> None:
        """See `prompt_toolkit.history.History`."""
        with suppress(OSError):
            super().store_string(string)


def _history(environment: Environment) -> History:
    """The statements of before; only those of this shell where the home cannot keep any.

    To read the lake takes no home that can be written.
    """
    history = environment.home / _HISTORY
    try:
        private_home(environment)
        history.touch(mode=0o600)
    except (UsageError, OSError) as error:
        print(f"Warning: statements are not kept for another shell: {error}", file=sys.stderr)
        return InMemoryHistory()
    return _Kept(str(history))


def _prompt(environment: Environment, session: Session) -> PromptSession[str]:
    return PromptSession(
        history=_history(environment),
        lexer=PygmentsLexer(SqlLexer),
        completer=TableCompleter(environment, session),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        multiline=True,
        key_bindings=_keys(),
        enable_open_in_editor=True,
    )


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @Condition
    def has_said_all() -> bool:
        from prompt_toolkit.application import get_app

        return is_whole(get_app().current_buffer.text)

    @keys.add("enter", filter=has_said_all)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return keys


def _name(session: Session) -> str:
    """What stands before the prompt; a session that cannot tell its schema is one all the same."""
    schema = _NO_SCHEMA
    with suppress(duckdb.Error):
        schema = session.schema
    return "nightshift" if schema == _NO_SCHEMA else schema


def _counted(rows: int) -> str:
    return f"{rows} row" if rows == 1 else f"{rows} rows"


def _read(file: str) -> str:
    try:
        words = shlex.split(file)
        if len(words) != 1:
            raise ValueError("say one file, in quotes where its name has spaces.")
        return Path(words[0]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"'{file}' cannot be read: {error}") from None


def _page(text: str) -> None:
    """Show a text; what is larger than the screen, in a pager."""
    if not sys.stdout.isatty() or _fits(text):
        sys.stdout.write(text)
        return
    words = shlex.split(os.environ.get("PAGER") or _PAGER)
    if not words or shutil.which(words[0]) is None:
        sys.stdout.write(text)
        return
    # No pager may start a shell or an editor, whatever is in the text.
    variables = {**os.environ, "LESSSECURE": "1"}
    # Ctrl-C is the pager's: else it would go on without anyone who waits for it. A handler, and not
    # SIG_IGN, which the pager would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        subprocess.run(words, input=text, text=True, env=variables, check=False)
    finally:
        signal.signal(signal.SIGINT, before)


def _fits(text: str) -> bool:
    screen = shutil.get_terminal_size()
    lines = text.splitlines()
    widest = max(map(len, lines), default=0)
    return len(lines) < screen.lines and widest <= screen.columns
