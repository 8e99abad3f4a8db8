"""Encoding of large text in several processes, because looking words up keeps one core of Python busy.

``python -m olmix_jax.corpus.encoding`` is such a process: it reads a tokenizer and chunks of texts, and writes their
ids.
"""

import collections
import contextlib
import gc
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

import olmix_jax
from olmix_jax.corpus.tokenizer import Tokenizer, chunks
from olmix_jax.utils import devices
from olmix_jax.utils.errors import UserError

# Smaller text is encoded by this process. Starting others takes longer.
SMALLEST = 1 << 24
_MOST = 8


class Encoder:
    """Encodes texts in order, in bounded memory, by processes that end with the ``with`` block.

    Args:
      tokenizer: encodes the texts.
      size: bytes of text to encode. Below :data:`SMALLEST` no processes are started.
    """

    def __init__(self, tokenizer: Tokenizer, size: int):
        self.tokenizer = tokenizer
        self._count = min(_MOST, devices.count_cpus()) if size >= SMALLEST else 1
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Encoder":
        return self

    def _start(self) -> None:
        package = str(pathlib.Path(olmix_jax.__file__).parents[1])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "olmix_jax.corpus.encoding"]
        for _ in range(self._count):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            self._processes.append(process)
            _send(process, self.tokenizer.to_json())

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def encode(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the token ids of each text, int32."""
        if self._count == 1:
            yield from self.tokenizer.encode_stream(texts)
            return
        if not self._processes:
            self._start()
        busy: collections.deque[subprocess.Popen[bytes]] = collections.deque()
        idle = collections.deque(self._processes)
        # A process gets a chunk when its last result is read, so that neither side waits for the other to read.
        for chunk in itertools.chain(chunks(texts), itertools.repeat(None, len(self._processes))):
            if busy and (chunk is None or not idle):
                process = busy.popleft()
                idle.append(process)
                yield from _receive(process)
            if chunk is not None:
                process = idle.popleft()
                busy.append(process)
                _send(process, chunk)


def _send(process: subprocess.Popen[bytes], value: str | list[str]) -> None:
    assert process.stdin is not None
    try:
        _write(process.stdin, json.dumps(value).encode())
    except OSError as e:
        raise _ended(process) from e


def _receive(process: subprocess.Popen[bytes]) -> Iterator[np.ndarray]:
    """Yield the ids of the texts of one chunk."""
    assert process.stdout is not None
    try:
        answer = json.loads(_read(process.stdout))
        ids = np.frombuffer(_read(process.stdout), np.int32)
    except (OSError, EOFError) as e:
        raise _ended(process) from e
    if "error" in answer:
        raise UserError(answer["error"])
    start = 0
    for count in answer["counts"]:
        yield ids[start : start + count]
        start += count


def _write(target: IO[bytes], content: bytes) -> None:
    """Write a message: its size in 8 bytes, and its content."""
    target.write(len(content).to_bytes(8, "little") + content)
    target.flush()


def _read(source: IO[bytes]) -> bytes:
    """Read a message of :func:`_write`. Raises EOFError if it is incomplete."""
    size = source.read(8)
    content = source.read(int.from_bytes(size, "little"))
    if len(size) < 8 or len(content) < int.from_bytes(size, "little"):
        raise EOFError
    return content


def _ended(process: subprocess.Popen[bytes]) -> UserError:
    return UserError(
        f"a process that encodes text ended with status {process.wait()}; if it was killed for its memory, free some; "
        "finished domains are kept: run the same command again"
    )


def main(source: IO[bytes], target: IO[bytes]) -> None:
    """Read a tokenizer and chunks of texts until the end, and write the ids of each chunk."""
    # Nothing here forms reference cycles, and looking for them takes a sixth of the time.
    gc.disable()
    tokenizer = Tokenizer(json.loads(_read(source)))
    with contextlib.suppress(EOFError):
        while True:
            ids: list[np.ndarray] = []
            try:
                ids = tokenizer.encode_many(json.loads(_read(source)))
                answer: dict[str, Any] = {"counts": list(map(len, ids))}
            except UserError as e:
                answer = {"error": str(e)}
            _write(target, json.dumps(answer).encode())
            _write(target, b"".join(map(bytes, ids)))


if __name__ == "__main__":
    # The process that started this one handles interruptions, and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):
        main(sys.stdin.buffer, sys.stdout.buffer)
