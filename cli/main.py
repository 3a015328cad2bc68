"""The `lookalike` program: its commands, and how their errors end."""

import os
import sys

import typer

from cli.bento import pack
from cli.compare import compare
from cli.console import say, silence
from cli.demo import demo
from cli.evaluate import evaluate
from cli.export import export as export_model
from cli.gallery_files import backup, export, import_, restore
from cli.gallery_life import compact, duplicates, rebuild, replace, tune
from cli.index import index_app
from cli.keys import new_key
from cli.purge import purge
from cli.search import classify, search
from cli.serve import serve
from cli.train import train
from dataset.errors import DatasetError
from index.errors import VectorIndexError
from service.errors import ServiceConfigError
from training.errors import TrainingError
from vision.errors import VisionError

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells say it; typer's code for Ctrl-C

app = typer.Typer(
    name="lookalike",
    help="A visual-search service you train yourself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(demo)
app.command()(train)
app.command()(evaluate)
app.command()(compare)
app.command("export")(export_model)
for command in (replace, rebuild, compact, tune, duplicates, export, backup, restore, purge):
    index_app.command()(command)
index_app.command("import")(import_)
app.add_typer(index_app, name="index")
app.command()(search)
app.command()(classify)
app.command()(serve)
app.command()(pack)
app.command("new-key")(new_key)


def main() -> None:
    """Run the command line; an error of ours is one sentence on standard error and exit code 1."""
    if os.environ.get("RANK", "0") != "0":  # as torchrun numbers its processes
        silence()
    os.environ["PYTHONSAFEPATH"] = "1"  # no child imports what happens to lie in this folder
    try:
        app()
    except (
        VisionError,
        DatasetError,
        VectorIndexError,
        TrainingError,
        ServiceConfigError,
    ) as error:
        say(f"lookalike: {error}")
        sys.exit(FAILED)
    except OSError as error:  # of a file that no floor takes care of, or a disk that filled up
        say(f"lookalike: {error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(FAILED)
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:
            say("lookalike: interrupted; what was finished is kept (train goes on with --resume)")
        raise


if __name__ == "__main__":
    main()
