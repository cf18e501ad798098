"""The command ``gristmill``. Heavy imports are inside the commands, so that ``--help`` is fast."""

from __future__ import annotations

import functools
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from gristmill.pipelines.command import clusters, interruption, lm, upkeep, using
from gristmill.pipelines.command import completion as shells
from gristmill.pipelines.command.arguments import Config, Out, Overrides, Recipe, Sections, Version
from gristmill.pipelines.command.usage import Commands
from gristmill.shards import interrupts, process, processor
from gristmill.shards.errors import GristmillError, Interrupted, UserError
from gristmill.shards.safe_text import escaped, safe

app = Commands(
    name="gristmill",
    help="Turn raw speech and text corpora into training data and trained models.",
    epilog="To begin: `gristmill config distill` shows the settings of a recipe, `gristmill run distill` runs it. "
    "`gristmill COMMAND --help` tells of a command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_is_program = False  # whether this process is the command, and nothing else
# Commands that commit no work, so that one that was interrupted has nothing to resume.
_PLAIN = {
    *("plan", "status", "compare", "inspect", "swap", "config", "completion"),
    *upkeep.PLAIN,
    *using.PLAIN,
    *clusters.PLAIN,
    *lm.PLAIN,
}


def main() -> None:
    """Run the command line."""
    global _is_program
    _is_program = True
    interruption.listen()
    process.choose_allocator()
    try:
        if sys.argv[1:2] == [shells.ANSWER]:
            shells.answer(typer.main.get_command(app), sys.argv[2:])
        else:
            app(prog_name="gristmill")
    except SystemExit as end:
        interruption.ends(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    except Exception:
        # A bug keeps its traceback, without the secrets of the environment that its message may quote.
        print(*map(safe, traceback.format_exc().splitlines()), sep="\n", file=sys.stderr)
        interruption.ends(1)
        sys.exit(1)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Report errors that users can fix as sentences with exit codes; bugs keep their traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            interruption.begin(resumes=command.__name__ not in _PLAIN)
            command(*args, **kwargs)
            interrupts.check()
        except Interrupted as error:
            interruption.leave(str(error))
        except GristmillError as error:
            if _is_program and isinstance(error, processor.LoadedBefore) and error.level != processor.asked():
                _begin_again(error.level)
            for sentence in error.args:
                print(f"gristmill: {sentence}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(error, UserError) else 1) from None
        except (KeyboardInterrupt, SystemExit):  # Ray, while it starts, turns SIGTERM into an exit
            interruption.leave()
        except BrokenPipeError:
            sys.stderr.close()  # else Python reports it at exit
            raise typer.Exit(1) from None
        except OSError as error:
            if error.filename is None or error.strerror is None:
                raise  # not of a file
            print(f"gristmill: {escaped(os.fsdecode(error.filename))}: {error.strerror.lower()}", file=sys.stderr)
            raise typer.Exit(2) from None
        finally:
            interruption.over()

    return wrapped


def _begin_again(level: str) -> NoReturn:
    """Replace this process by one that is pinned to a level before its libraries are loaded."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], processor.environment(level))


@app.command()
@reports_errors
def run(
    config: Config,
    overrides: Overrides = None,
    again: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="A stage, step or training to make anew, and what depends on it."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run or resume a recipe."""
    from gristmill.pipelines.config import load

    _carry_out(load(config, overrides or []), quiet, again=again or ())


@app.command()
@reports_errors
def requeue(
    out: Out,
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="The run's recipe file, if it names modules that are not Gristmill's."),
    ] = None,
) -> None:
    """Reprocess the quarantined records of OUT, and the work that depends on them."""
    from gristmill.pipelines.config import load_saved
    from gristmill.shards.store import absolute

    _carry_out(load_saved(absolute(out), overrides or [], config), quiet=False, requeue=True)


def _carry_out(loaded: Any, quiet: bool, requeue: bool = False, again: Sequence[str] = ()) -> None:
    from gristmill.pipelines.command.launch import carry_out
    from gristmill.pipelines.command.left_out import left_out
    from gristmill.pipelines.finished import conclude, read_finished
    from gristmill.pipelines.pace import clock
    from gristmill.pipelines.progress import plural, shown
    from gristmill.shards.store import join

    begun = time.monotonic()
    with shown(quiet) as progress:
        done, busy = carry_out(loaded, progress, requeue=requeue, again=again)
    seconds = time.monotonic() - begun  # those of its results were spent side by side
    if not busy:
        print("nothing to do: everything was finished by an earlier run")
    records = sum(entry.records for entry in done.trace if not entry.kept)
    made = {entry.url for entry in done.trace if not entry.kept}
    print(f"report: {join(done.out, 'report.html')}")
    if busy:
        kept = len({entry.url for entry in done.trace} - made)
        results = "1 set, artifact or model" if len(made) == 1 else f"{len(made)} sets, artifacts and models"
        work = f"made {results} ({plural(records, 'record')}) in {clock(seconds)}"
        print(f"{work}; {kept} kept from before")
    for line in left_out(done.out, done.trace):
        print(escaped(line))
    if done.verdict:
        print(f"verdict: {escaped(done.verdict)}")
    finished = read_finished(done.out)
    for line in conclude(finished) if finished is not None else ():
        print(line)


@app.command()
@reports_errors
def compare(
    outs: Annotated[list[str], typer.Argument(metavar="OUT1 OUT2...", help="The outputs of two runs or more.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what changed between runs: settings, data, and figures with paired intervals."""
    from gristmill.pipelines.command.compare import show_comparison
    from gristmill.shards.store import absolute

    show_comparison([absolute(out) for out in outs], as_json)


@app.command()
@reports_errors
def plan(
    config: Config,
    overrides: Overrides = None,
    sample: Annotated[int | None, typer.Option(min=1, metavar="RECORDS", help="Records of each source to try.")] = None,
    cpu_hour: Annotated[float | None, typer.Option(min=0, metavar="PRICE", help="Price of a CPU hour.")] = None,
    gpu_hour: Annotated[float | None, typer.Option(min=0, metavar="PRICE", help="Price of a GPU hour.")] = None,
    graph: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw what is made of what into FILE.svg or FILE.mmd (Mermaid).")
    ] = None,
) -> None:
    """Estimate the work, time and cost of a run, without running it."""
    from gristmill.pipelines.command.plan import check_picture, make_plan, show_plan, write_picture
    from gristmill.pipelines.config import load
    from gristmill.shards.store import absolute

    if graph is not None:
        check_picture(graph)

    prices = [
        f"price.{key}={value}" for key, value in (("cpu_hour", cpu_hour), ("gpu_hour", gpu_hour)) if value is not None
    ]
    made = make_plan(load(config, [*(overrides or []), *prices]), sample)
    show_plan(made)
    if graph is not None:
        write_picture(made, absolute(graph))
        print(f"graph: {absolute(graph)}")


@app.callback()
def options(version: Version = False) -> None:
    """Hold the options of the command itself."""


@app.command()
@reports_errors
def config(
    recipe: Recipe,
    words: Sections = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """Show the settings of a recipe: kinds, defaults, meanings, and what the file sets."""
    from gristmill.pipelines.command.config import recipe_settings, show

    given = words or []
    found = recipe_settings(recipe, [word for word in given if "=" in word])
    show(found, [word.rstrip(".") for word in given if "=" not in word], as_json)


@app.command()
@reports_errors
def status(
    out: Out,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until the run is over.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Interval of --watch.")] = 2.0,
) -> None:
    """Show the progress of a run, from its committed work."""
    from gristmill.pipelines.command.status import show_status
    from gristmill.shards.store import absolute

    show_status(absolute(out), every if watch else None)


@app.command()
@reports_errors
def inspect(
    url: Annotated[str, typer.Argument(metavar="SET_OR_OUT", help="A sealed set or the output of a run.")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, metavar="N", help="Records to show of each set.")] = 5,
    where: Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="What a record must have.")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show the rejected records.")] = False,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="Show the records that made a stage fail.")] = False,
    save_audio: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write the audio of the records into DIR.")
    ] = None,
) -> None:
    """Show records of a set, those that were rejected and why, or those that broke a stage."""
    from gristmill.pipelines.command.inspect import show_records
    from gristmill.shards.store import absolute

    side = "rejects" if rejects else "quarantine" if quarantine else "data"
    show_records(absolute(url), n, where or [], side, save_audio)


@app.command()
@reports_errors
def export(
    url: Annotated[str, typer.Argument(metavar="SET", help="A sealed set: its folder, or OUT/NAME of a run.")],
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="huggingface, nemo, lhotse or webdataset.")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="An unused path or URL.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="runner=ray|inprocess, workers=N.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="Columns to export [all that the format can hold].")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Export a set in another tool's format, or resume an export."""
    from gristmill.pipelines.command.export import export_set
    from gristmill.pipelines.progress import plural, shown

    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    with shown(quiet) as progress:
        made = export_set(url, form, dest, names, settings or [], progress)
    if not made.fresh:
        print("nothing to do: the export was finished earlier")
    if made.mended:
        files = "1 file was" if len(made.mended) == 1 else f"{len(made.mended)} files were"
        first = made.mended[0]
        print(f"{files} damaged or missing, and written again: {escaped(first.url)}: {escaped(first.fault)}")
    print(f"exported {plural(made.records, 'record')}: {made.manifest}")
    for reason, count in made.left_out.items():
        print(f"{plural(count, 'record')} left out: {escaped(reason)}")


@app.command()
@reports_errors
def rerank(
    lists: Annotated[str, typer.Argument(metavar="LISTS", help="A sealed set, or a .parquet or .jsonl file.")],
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="A folder with DOMAIN.json of each domain.")],
    out: Out,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="runner=ray|inprocess, workers=N.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Score lists of hypotheses with the re-rankers of their domains, or resume scoring."""
    from gristmill.pipelines.command.rerank import rerank_lists
    from gristmill.pipelines.progress import plural, shown

    with shown(quiet) as progress:
        made, fresh = rerank_lists(lists, weights, out, settings or [], progress)
    if not fresh:
        print("nothing to do: everything was finished by an earlier run")
    print(f"ranked {plural(made.records, 'list')}: {made.url}")
    url = shlex.quote(made.url)
    if turned_down := made.seal["rejected"]:
        print(f"{plural(turned_down, 'list')} rejected; `gristmill inspect {url} --rejects` shows why")
    if broken := made.seal["quarantined"]:
        print(f"{plural(broken, 'list')} could not be scored; `gristmill inspect {url} --quarantine` shows why")
        raise typer.Exit(0 if made.records else 1)


@app.command()
@reports_errors
def swap(
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new DOMAIN.json.")],
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="The folder of the weights in use.")],
    held_out: Annotated[
        str, typer.Argument(metavar="LISTS", help="A sealed set of lists that neither was trained on.")
    ],
) -> None:
    """Replace one domain's re-ranker, unless the new one is worse on held-out lists."""
    from gristmill.pipelines.command.rerank import swap

    gate = swap(new, weights, held_out)
    print(f"replaced: held-out log loss {gate.new:.4f}, before {gate.old:.4f} ({gate.n} hypotheses)")


for verb in (*upkeep.VERBS, *using.VERBS, *clusters.VERBS):
    app.command()(reports_errors(verb))
stores = Commands(name="lm", help="Compact stores of language models: build, score, info.", rich_markup_mode=None)
for of_stores in lm.VERBS:
    stores.command()(reports_errors(of_stores))
app.add_typer(stores)


@app.command()
@reports_errors
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the code by which a shell completes commands, settings and files: `source <(gristmill completion bash)`."""
    print(shells.script(shell), end="")


if __name__ == "__main__":
    main()
