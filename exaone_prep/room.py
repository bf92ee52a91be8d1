"""What one group claims of the scratch, slide by slide, as more becomes known of it."""

from __future__ import annotations

from collections.abc import Sequence

from exaone_prep.need import SlideNeed, in_words, need_bytes
from exaone_prep.scratch import Scratch, ScratchFullError, ScratchTooSmallError


class Room:
    """The claim of one group.

    Attributes:
        needs: Of each of its slides.
    """

    def __init__(self, scratch: Scratch, group: int, needs: Sequence[SlideNeed]) -> None:
        """Claim nothing yet.

        Raises:
            ScratchTooSmallError: The copies of its slides alone are beyond the limit.
        """
        self.needs = list(needs)
        self._scratch = scratch
        self._group = group
        self._refuse_beyond_limit(sum(need.staged for need in self.needs))

    @property
    def need_bytes(self) -> int:
        """Of the whole group, as far as known."""
        return need_bytes(self.needs)

    def claim_for_copies(self) -> bool:
        """Claim what copies of slides take, ahead of the group's turn; whether that is granted."""
        return self._scratch.claim(self.name, sum(need.staged for need in self.needs))

    def claim_for_start(self) -> bool:
        """Claim the need, as far as that is no guess; whether that is granted, so that the group may start."""
        # Before the survey the need is guessed: what seems too much for the limit may yet fit.
        return self._scratch.claim(self.name, min(self.need_bytes, self._scratch.limit_bytes or 0))

    def covers_the_need(self) -> bool:
        """Whether the claim was brought to the need."""
        return self._scratch.claim(self.name, self.need_bytes)

    def check(self) -> None:
        """Make sure of the room, now that the need is no guess any more.

        Raises:
            ScratchTooSmallError: There will never be room.
            ScratchFullError: There is none now.
        """
        self._refuse_beyond_limit(self.need_bytes)
        if not self.covers_the_need():
            raise ScratchFullError

    def release(self) -> None:
        """Give the claim back."""
        self._scratch.release(self.name)

    @property
    def name(self) -> str:
        """Of the claim."""
        return f"group-{self._group:06d}"

    def _refuse_beyond_limit(self, need: int) -> None:
        limit = self._scratch.limit_bytes
        if limit is not None and need > limit:
            raise ScratchTooSmallError(
                f"Group {self._group} needs about {in_words(need)} of scratch and the limit is {in_words(limit)}: "
                "raise --scratch-limit, or build into a new directory with fewer shards.slides_per_group."
            )
