"""The `provd` command: its groups, and how errors become one line and an exit status."""

from __future__ import annotations

import atexit
import errno
import os
import sys
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from provd.cli import (
    backup,
    config,
    consume,
    demo,
    doctor,
    export,
    import_,
    lineage,
    quarantine,
    query,
    replay,
    run,
    runs,
    status,
    store,
    tasks,
)
from provd.cli.exits import DONE, FAILED, INTERRUPTED, TERMINATED, USAGE, exit_status
from provd.cli.output import say_error
from provd.cli.stopping import exit_on_sigterm, is_terminated
from provd.common.errors import ProvdError
from provd.common.passwords import mask_url

#: How a disk refuses what is written to it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

#: Commands that are ended by SIGTERM as the command that they run is.
_PASS_SIGNALS_ON = ("run",)

#: What click raises for options and arguments that it cannot take; some versions of Typer bring a click of their own.
_WrongUsage: type[Exception] = typer.BadParameter.__mro__[1]


class ProvdGroup(TyperGroup):
    """The root group: the one place where an error ends a command."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run and exit; a wrong option or argument becomes one line, as errors of ours do."""
        if options.get("standalone_mode") is False:
            return super().main(*args, **options)
        options["standalone_mode"] = False
        try:
            status = super().main(*args, **options)
        except _WrongUsage as error:
            if type(error).__name__ != "NoArgsIsHelpError":  # of that, the help has been printed
                say_error(_usage_line(error))
            sys.exit(USAGE)
        finally:
            _end_at_once()
        sys.exit(status or DONE)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever it raises on purpose becomes one clear message and the status that fits."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ProvdError as error:
            if is_terminated():
                raise typer.Exit(TERMINATED) from None
            say_error(mask_url(str(error)))
            raise typer.Exit(exit_status(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output (`| head`) has had enough.
            _discard_output()
            raise typer.Exit(DONE) from None
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _discard_output()
            say_error(f"the output cannot be written: {error.strerror}")
            raise typer.Exit(FAILED) from None


def _end_at_once() -> None:
    """Not wait for threads of MongoDB's driver, which sleep for half a second before they see that they are closed."""
    driver = sys.modules.get("pymongo.synchronous.monitor")
    waiting: Any = getattr(driver, "_shutdown_resources", None)
    atexit.unregister(waiting)


def _discard_output() -> None:
    """What is left of the output goes nowhere: Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_line(error: Any) -> str:
    """What is wrong, the value if there is one, and where to read on."""
    text = error.format_message().rstrip(".")
    details: Any = getattr(error.__cause__, "errors", None)
    if details is not None:
        text = text.replace("Input should", "it should").partition(", unable to")[0]
        text += f", not {details()[0]['input']!r}"
    text = text[:1].lower() + text[1:]
    return f"{text}; see `{error.ctx.command_path} -h`" if error.ctx is not None else text


app = typer.Typer(
    cls=ProvdGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Provenance of workflows: capture what ran, keep it, ask about it.",
    epilog="Exit status: 0 done, 1 failed or incomplete, 2 wrong usage or settings, 3 a service cannot be reached.",
)
app.command("demo")(demo.demo)
app.command("consume")(consume.consume)
app.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    run.run
)
app.command("replay")(replay.replay)
app.command("status")(status.status)
app.add_typer(runs.app, name="runs")
app.command("tasks")(tasks.tasks)
app.command("lineage")(lineage.lineage)
app.command("query")(query.query)
app.command("export")(export.export)
app.command("import")(import_.import_runs)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.add_typer(store.app, name="store")
app.add_typer(quarantine.app, name="quarantine")
app.command("doctor")(doctor.doctor)
app.add_typer(config.app, name="config")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"provd {version('provd')}\n")
        raise typer.Exit(DONE)


@app.callback()
def root(
    context: typer.Context,
    settings: Annotated[
        Optional[str],
        typer.Option(
            "--settings", metavar="FILE", help="Settings file (YAML); else PROVD_SETTINGS, ./provd.yaml."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has seen to it
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Keep what the commands below need of the options above them."""
    context.obj = settings
    if context.invoked_subcommand not in _PASS_SIGNALS_ON:
        context.with_resource(exit_on_sigterm())


def main() -> None:
    """The entry point of the `provd` command and of `python -m provd`."""
    app(prog_name="provd")
