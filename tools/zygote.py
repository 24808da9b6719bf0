"""Start processes fast by forking one that has imported their modules.

Importing composer takes longer than all work of a test's rank. The forks equal fresh processes,
because the zygote only imports: it has no threads, shared memory or resource tracker.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

PRIVATE = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]


def private_memory() -> bool:
    """Return whether processes can have a private /dev/shm, without other processes' names."""
    try:
        return subprocess.run([*PRIVATE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def running(pids: Iterable[int]) -> list[int]:
    """Return the processes that run; zombies do not."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found.append(pid)
    return found


def group(leader: int) -> list[int]:
    """Return the running processes of a child's process group, such as its workers."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in running(pids) if _group_of(pid) == leader]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def until(true: Callable[[], bool], timeout: float) -> bool:
    """Wait until a condition holds, at most ``timeout`` seconds, and return whether it does."""
    end = time.monotonic() + timeout
    while not (done := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return done


class Child:
    """A process forked by a zygote, with ``pid`` and a process group of its own."""

    def __init__(self, zygote: "Zygote", pid: int, said: Path) -> None:
        self._zygote, self.pid, self._said = zygote, pid, said
        self._code: int | None = None

    @property
    def said(self) -> str:
        """Standard output and error so far."""
        return self._said.read_text()

    def poll(self) -> int | None:
        """Return the exit code (or minus the signal), or None while it runs."""
        if self._code is None:
            self._code = self._zygote.ask({"poll": self.pid})
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for the exit code.

        Raises:
            TimeoutError: It still runs after ``timeout`` seconds; the message ends with its output.
        """
        if not until(lambda: self.poll() is not None, timeout):
            raise TimeoutError(
                f"process {self.pid} still runs after {timeout} s: {self.said[-3000:]}"
            )
        return self._code

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signum)


class Zygote:
    """Import modules, and fork processes that have them.

    Args:
        modules: The modules to import.
        path: Folders to search first.
    """

    def __init__(self, modules: Sequence[str], path: Sequence[str]) -> None:
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])
        }
        command = [*(PRIVATE if private_memory() else []), sys.executable, __file__, *modules]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.ask({"poll": 0})  # Returns after the imports.

    def shared_memory(self) -> set[str]:
        """Return the names in the children's /dev/shm."""
        return set(os.listdir(f"/proc/{self._process.pid}/root/dev/shm"))

    def ask(self, request: dict):
        """Send a request and return the answer."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the zygote ended with code {self._process.wait()}")
        return json.loads(answer)

    def start(
        self, function: str, *args, said: Path, env: Mapping[str, str] | None = None
    ) -> Child:
        """Fork a process that calls a function and exits with code 0 when it returns.

        Args:
            function: ``module:function``.
            *args: The function's arguments, which must be JSON values.
            said: File of standard output and error.
            env: Added environment variables.
        """
        request = {"start": function, "args": list(args), "said": str(said), "env": dict(env or {})}
        return Child(self, self.ask(request), Path(said))

    def close(self) -> None:
        """End the zygote; its children continue."""
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Keeps prints of imports out of the answers.
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = os.fork()
            if answer == 0:
                answers.close()
                _run(request)
        else:
            answer = _poll(request["poll"])
        print(json.dumps(answer), file=answers, flush=True)


def _poll(pid: int) -> int | None:
    if pid == 0:
        return None
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _run(request: dict) -> None:
    """Run the request in the child, and exit."""
    os.setpgid(0, 0)
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    sys.stdin = open(0)  # noqa: SIM115  The zygote's buffer holds requests read ahead.
    os.environ.update(request["env"])
    tempfile.tempdir = None  # TMPDIR may have changed.
    module, function = request["start"].split(":")
    getattr(importlib.import_module(module), function)(*request["args"])
    sys.exit(0)  # Unlike os._exit, it runs exit handlers.


if __name__ == "__main__":
    _serve()
