"""Parts of scripts/test-ktls."""

import subprocess
import sys

# What the machine prints for people and for us begins so; all else on its console is the kernel's.
MARK = "ktls> "


class Unavailable(Exception):
    """Something that is needed cannot be had: what, and what to do, in one line."""


def say(text):
    print(f"test-ktls: {text}", flush=True)


def output_of(*command, seconds=300, **options):
    """What a program prints, if it succeeds."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=seconds, check=False, **options)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took more than {seconds} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise Unavailable(f"{' '.join(command[:3])}…: {last}")
    return done.stdout


def run_loudly(*command, seconds):
    """Runs a program whose output people want to see."""
    sys.stdout.flush()
    try:
        subprocess.run([str(part) for part in command], timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
