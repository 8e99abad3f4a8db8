"""Optional outputs: if one fails, the reason is logged and the required outputs are still written."""

import contextlib
import traceback
from collections.abc import Iterator

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


class LeftOut:
    """The optional outputs that failed.

    Attributes:
      reasons: a sentence per output: "the next runs are left out: ‹reason›".
    """

    def __init__(self) -> None:
        self.reasons: list[str] = []

    @contextlib.contextmanager
    def unless_fails(self, stage: str, output: str) -> Iterator[None]:
        """Run the block. If it raises, log the reason as a warning and continue after the block.

        Args:
          stage: name of the stage, for the log.
          output: the output as a plural noun, such as "the next runs".
        """
        try:
            yield
        except Exception as e:  # whatever fails here must not stop the required output
            reason = f"{output} are left out: {reason_of(e)}"
            self.reasons.append(reason)
            log.warning("%s: %s", stage, reason)


def reason_of(error: Exception) -> str:
    """Return the message of a user error; for others also the type and the line of code, for a bug report."""
    if isinstance(error, UserError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:200] or 'no message'}"
