"""The `lookalike` program: runs a command; whatever ends it is reported in one sentence.

Nothing heavy is imported above: from the first line on, Ctrl-C ends with a sentence as well.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path

FAILED = 1
MISUSED = 2  # the command or a setting; typer's code for options
INTERRUPTED = 130  # 128 + SIGINT, as shells say it; typer's code for Ctrl-C
NO_MEMORY = ("out of memory", "can't allocate memory")  # as torch says it, of GPU and CPU
STREAMS = 3  # standard input, output and error


def main() -> None:
    """Run the command line; an error is one sentence on standard error and exit code 1."""
    try:
        _prepare_streams()
        failed_threads = _watch_threads()
        code = _run()
        sys.stdout.flush()
        code = code or (FAILED if failed_threads else 0)
    except BaseException as error:
        code = _report_error(error)
    if code == INTERRUPTED:
        # Whoever presses Ctrl-C again does not wait for what is being cleared away.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _print_error(f"interrupted; what was finished is kept{_resume_hint()}")
    sys.exit(code)


def _resume_hint() -> str:
    """Return how the command that was interrupted goes on, as the end of a sentence."""
    if {"up", "demo"} & set(sys.argv[1:2]):
        return ", and the same command goes on from there"
    return ", and --resume goes on from there" if "train" in sys.argv else ""


def _run() -> int:
    """Return the exit code of the command."""
    from cli.commands import app  # noqa: PLC0415
    from cli.support.console import disable_output  # noqa: PLC0415
    from files.resource_limits import limit_threads  # noqa: PLC0415

    if _is_secondary_process():
        disable_output()
    _print_warnings()
    limit_threads(os.environ)
    os.environ["PYTHONSAFEPATH"] = "1"  # no child imports what happens to lie in this folder
    try:
        app()
    except SystemExit as exit_:  # typer's way to end
        return exit_.code if isinstance(exit_.code, int) else FAILED
    return 0


def _print_warnings() -> None:
    """Print what the floors below warn of as it is, whatever a library does to the root's log."""
    log = logging.getLogger("lookalike")
    log.addHandler(logging.StreamHandler())
    log.propagate = False


def _report_error(error: BaseException) -> int:
    """Print why the program ends, and return its exit code."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # whoever read the output has seen enough
        _discard_output()
        return FAILED
    sentence = _known_message(error)
    if sentence is None:
        _report_bug(error)
    elif not _is_secondary_process():  # the first of them says it
        _print_error(sentence)
    if isinstance(error, OSError):
        _discard_output()  # it may be what failed, and would fail again when Python ends
    from service.errors import SettingError  # noqa: PLC0415

    return MISUSED if isinstance(error, SettingError) else FAILED


def _known_message(error: BaseException) -> str | None:
    """Return the sentence for an error that a person can do something about, else None."""
    from dataset.errors import DatasetError  # noqa: PLC0415
    from index.errors import VectorIndexError  # noqa: PLC0415
    from service.errors import ServiceConfigError  # noqa: PLC0415
    from training.errors import TrainingError  # noqa: PLC0415
    from vision.errors import VisionError  # noqa: PLC0415

    ours = VisionError | DatasetError | VectorIndexError | TrainingError | ServiceConfigError
    if isinstance(error, ours):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        # Of a file that no floor takes care of, or of the output, which has no name.
        reason = error.strerror or os.strerror(error.errno)
        return f"{error.filename or 'reading or writing failed'}: {reason}"
    if isinstance(error, ModuleNotFoundError) and _is_left_out(error.name or ""):
        return f"this command needs {error.name}, which is not installed here"
    message = str(error).lower()
    if isinstance(error, MemoryError) or any(words in message for words in NO_MEMORY):
        return "there is not enough memory for this"
    return None


def _is_left_out(module: str) -> bool:
    """Return whether a whole package is missing that is not ours: the images leave some out."""
    ours = {path.name for path in Path(__file__).parents[1].iterdir()}
    return bool(module) and "." not in module and module not in ours


def _report_bug(error: BaseException) -> None:
    """Report a bug of ours, and where all that is known of it was written."""
    from cli.support.crash_report import error_location, redact_secrets, write_report  # noqa: PLC0415

    message = str(error).strip().split("\n")[0][:300]
    name = type(error).__name__
    what = redact_secrets(f"{name}: {message}" if message else name)
    written = write_report(error, sys.argv)
    _print_error(
        f"something went wrong that should not have: {what.rstrip('.')}. "
        + (
            f"The full report is in {written}; please attach it when you report this"
            if written
            else f"It happened in {error_location(error)}; a full report could not be written"
        )
    )


def _print_error(sentence: str) -> None:
    """Print a sentence on standard error, where there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"lookalike: {sentence}\n")
        sys.stderr.flush()


def _prepare_streams() -> None:
    """Make standard output take every character; what is printed to a closed stream goes nowhere.

    No file may get the number of a closed stream: what libraries print would be written into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < STREAMS:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    encoding = sys.stdout.encoding if sys.stdout else None
    # With a buffer also under PYTHONUNBUFFERED: without, what a pipe or a disk does not take at
    # once is lost without an error.
    sys.stdout = os.fdopen(1, "w", encoding=encoding, errors="backslashreplace", closefd=False)


def _discard_output() -> None:
    """Let what is still to be printed go nowhere, quietly."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _watch_threads() -> list[BaseException]:
    """Return a list that gets what ends a thread; each is reported when it happens.

    The same for errors that Python cannot raise, as in a destructor; they end nothing.
    """
    failed: list[BaseException] = []

    def ended(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            failed.append(args.exc_value)
            _report_error(args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            _report_error(args.exc_value)

    threading.excepthook, sys.unraisablehook = ended, unraisable
    return failed


def _is_secondary_process() -> bool:
    """Return whether another process of the same training reports; torchrun numbers them."""
    return os.environ.get("RANK", "0") != "0"


if __name__ == "__main__":
    main()
