"""Shell completion: argcomplete asks the command itself what may follow."""

from __future__ import annotations

import argparse
import os

from pipelines import catalog
from pipelines.stages import STAGES

SHELLS = ("bash", "zsh", "fish")
HOW = {
    "bash": 'eval "$(nightshift completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(nightshift completion zsh)" in ~/.zshrc, after compinit',
    "fish": "nightshift completion fish | source in ~/.config/fish/config.fish",
}


def script(shell: str) -> str:
    """What a shell runs once, so that TAB completes our command lines."""
    from argcomplete.shell_integration import shellcode

    return shellcode(["nightshift"], shell=shell)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer and end the process when a shell asks for completions; else do nothing."""
    # The shell's function sets it; argcomplete is not imported by any other call.
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options="long")


def pipelines(**_: object) -> list[str]:
    """Names of pipelines, for argcomplete."""
    return catalog.names()


def stages(**_: object) -> list[str]:
    """Names of stages, for argcomplete."""
    return [stage.name for stage in STAGES]


def families(**_: object) -> list[str]:
    """Names of model families, for argcomplete."""
    from pipelines.model import FAMILIES

    return list(FAMILIES)


def services(**_: object) -> list[str]:
    """Names of services, for argcomplete."""
    from jobs.commands.logs import names
    from pipelines.environment import Environment

    return names(Environment.read())
