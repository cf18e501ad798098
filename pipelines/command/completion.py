"""Completion in a shell: ``gristmill completion SHELL`` prints the code that asks ``gristmill complete`` at each TAB.

The answer needs the commands' declarations and a few files, so that it comes at once: no recipe is imported.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from gristmill.pipelines.command import known
from gristmill.pipelines.command.known import Offer
from gristmill.shards.errors import UserError

ANSWER = "complete"  # the word behind the command's name with which a shell asks

# Words are split at whitespace only: Bash itself also splits them at "=" and ":", and replaces what is behind these.
_BASH = r"""# source <(gristmill completion bash)
_gristmill() {
    local line=${COMP_LINE:0:COMP_POINT} word part
    local -a words
    IFS=$' \t' read -ra words <<< "$line"
    word=${line##*[[:space:]]}
    [[ -z $word ]] && words+=("")
    mapfile -t COMPREPLY < <("$1" complete bash "${words[@]:1}" 2>/dev/null)
    part=${word##*[=:]}
    COMPREPLY=("${COMPREPLY[@]#"${word%"$part"}"}")
    [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
complete -o default -F _gristmill gristmill
"""
_ZSH = r"""#compdef gristmill
# source <(gristmill completion zsh)    # behind compinit
_gristmill() {
    local one word text
    local -a found open whole
    found=("${(@f)$("${words[1]}" complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for one in $found; do
        word=${one%%$'\t'*} text=${one#*$'\t'}
        if [[ $word == *[=./] ]]; then
            open+=("${word//:/\\:}${text:+:$text}")
        else
            whole+=("${word//:/\\:}${text:+:$text}")
        fi
    done
    if (( $#open + $#whole )); then
        _describe gristmill open -S '' -- whole
    else
        _files
    fi
}
compdef _gristmill gristmill
"""
_FISH = r"""# gristmill completion fish | source
function __gristmill
    set -l words (commandline -opc)
    set -l found ($words[1] complete fish $words[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c gristmill -f -a '(__gristmill)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """Return the code that a shell reads to complete the command.

    Raises:
        UserError: it is a shell for which there is none.
    """
    if shell not in SCRIPTS:
        from gristmill.shards.wording import nearest, or_else

        raise UserError(
            f"{shell}: no shell that can be completed" + or_else(nearest(shell, SCRIPTS), ", ".join(SCRIPTS))
        )
    return SCRIPTS[shell]


def answer(group: Any, words: Sequence[str]) -> None:
    """Print what a shell asks for: its name, and the words behind the command's, of which the last is begun.

    Nothing is printed where a file may be meant: then the shell completes it.
    """
    shell, *given = [*words, ""] if len(words) == 1 else words
    for word, about in offers(group, given[:-1], given[-1]):
        print(word if shell == "bash" else f"{word}\t{about}")
    sys.stdout.flush()


def offers(group: Any, before: Sequence[str], begun: str) -> Offer:
    """Return the words that may stand behind others and begin as one does, each with a few words about it."""
    if not before:
        verbs = [(name, verb.get_short_help_str(known.LONGEST)) for name, verb in group.commands.items()]
        return _options(group, begun) if begun.startswith("-") else _starting(begun, verbs)
    verb = group.commands.get(before[0])
    if verb is None:
        return []
    if hasattr(verb, "commands"):  # a group, such as lm
        return offers(verb, before[1:], begun)
    arguments, open_option = _parted(verb, before[1:])
    if open_option is not None:
        return _completed(open_option.metavar, "", [], begun) or _starting(begun, _choices(open_option))
    if begun.startswith("-"):
        return _options(verb, begun)
    declared = [param for param in verb.params if param.param_type_name == "argument"]
    if not declared or (len(arguments) >= len(declared) and declared[-1].nargs != -1):
        return []
    asked = declared[min(len(arguments), len(declared) - 1)]
    return _completed(asked.metavar, declared[0].metavar, arguments, begun)


def _parted(verb: Any, words: Sequence[str]) -> tuple[list[str], Any]:
    """Return those of a verb's words that are arguments, and the option at their end that still has to get a value."""
    valued = {name: one for one in _options_of(verb) if not one.is_flag for name in one.opts}
    arguments, open_option = [], None
    for word in words:
        if open_option is not None:
            open_option = None
        elif word in valued:
            open_option = valued[word]
        elif not word.startswith("-"):
            arguments.append(word)
    return arguments, open_option


def _choices(option: Any) -> Offer:
    """Return the words that the value of an option may be, if it may be no other."""
    kind = option.type_descriptor.annotation
    kinds = [kind, *typing.get_args(kind)]  # it may be ``Literal[...] | None``
    return [(word, "") for one in kinds if typing.get_origin(one) is typing.Literal for word in typing.get_args(one)]


def _options_of(verb: Any) -> list[Any]:
    return [param for param in verb.params if param.param_type_name == "option"]


def _options(verb: Any, begun: str) -> Offer:
    found = [(name, one.help or "") for one in _options_of(verb) for name in one.opts]
    return _starting(begun, [*found, ("--help", "Show this message and exit.")])


def _starting(begun: str, found: Iterable[tuple[str, str]]) -> Offer:
    return [(word, about) for word, about in found if word.startswith(begun)]


def _completed(asked: str, first: str, before: Sequence[str], begun: str) -> Offer:
    """Complete a value by its name in the help; ``first`` is that of the verb's first argument, if it has any."""
    if asked == "CONFIG":
        return known.recipe_files(begun)
    if asked == "[SECTION|KEY=VALUE]...":
        return known.settings(before[0], begun, "")
    if asked == "[KEY=VALUE]..." and first in ("CONFIG", "OUT"):
        return known.settings(before[0] if first == "CONFIG" else None, begun)
    return _starting(begun, [(word, "") for word in _WORDS.get(asked, ())])


_WORDS = {
    "FORMAT": ("huggingface", "nemo", "lhotse", "webdataset"),
    "KIND": ("kuberay", "ray-up", "slurm"),
    "SHELL": tuple(SCRIPTS),
    "[KEY=VALUE]...": ("runner=ray", "runner=inprocess", "workers="),  # of a verb without a recipe
}
