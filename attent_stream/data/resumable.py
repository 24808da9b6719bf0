"""``ResumableDataset``: a StreamingDataset's state with the position within a taught epoch."""

from typing import Any

from streaming import StreamingDataset

from attent_stream.order.open_order import check_same_kind
from attent_stream.order.order import LAZY, STREAMING
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.teach.position import Position


class ResumableDataset(StreamingDataset):
    """A StreamingDataset that saves and resumes taught epochs, in the main process.

    Attributes:
        order: Kind of the order, ``streaming`` or ``lazy``.
    """

    next_epoch: int
    order: str
    _taught: TaughtEpoch | None = None
    _loaded: dict[str, Any] | None = None  # the state that was loaded last

    @property
    def coming_epoch(self) -> int:
        """Number of the epoch that is iterated next."""
        return self.next_epoch

    @property
    def coming_position(self) -> Position | None:
        """Position in a taught epoch from which the next iteration resumes, or None.

        Raises:
            ValueError: The loaded position has another version.
        """
        loaded = self._to_resume
        text = None if loaded is None else loaded.get("attent")
        return Position.load(text) if text and text != LAZY else None

    @property
    def resumes(self) -> bool:
        """Whether the next iteration resumes from a loaded state."""
        return self._to_resume is not None

    @property
    def _to_resume(self) -> dict[str, Any] | None:
        loaded = self._loaded
        return loaded if loaded is not None and self.next_epoch <= loaded["epoch"] else None

    def follow(self, taught: TaughtEpoch | None) -> None:
        """Report the position of this taught epoch in ``state_dict`` from now on."""
        self._taught = taught

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Return the state of training. This changes nothing.

        In addition to Streaming's entries there is ``attent``: a ``Position`` as JSON within a
        taught epoch, ``lazy`` within a plain epoch of the lazy order, else an empty string. At the
        end of an epoch the state is the start of the next one, while Streaming's would repeat the
        finished epoch's order.

        Args:
            num_samples: Samples trained on, by all ranks.
            from_beginning: Whether samples are counted from the start of the epoch, or from where
                this process resumed it.
        """
        loaded, to_resume = self._loaded, self._to_resume
        taught = self._taught if to_resume is None else None
        epoch, offset, text = self.next_epoch - 1, 0, ""
        known = {
            "num_canonical_nodes": self.num_canonical_nodes or self._default_canonical_nodes,
            "shuffle_seed": self.shuffle_seed,
            "initial_physical_nodes": self.initial_physical_nodes
            or self._parallel_rank_world.num_nodes,
        }
        if taught is not None:
            epoch = taught.order.epoch
        if loaded is not None and loaded["epoch"] >= epoch:
            epoch, offset = loaded["epoch"], loaded["sample_in_epoch"]
            known = {name: loaded.get(name) or value for name, value in known.items()}
        samples = num_samples if from_beginning else offset + num_samples
        if samples == 0 and (taught is None or taught.started):
            epoch = self.coming_epoch
        elif taught is not None:
            text = taught.position.dump() if samples else ""
        elif to_resume is not None and samples == offset:
            text = to_resume.get("attent", "")
        return {
            "epoch": epoch,
            "sample_in_epoch": samples,
            **known,
            "attent": text or self._order_mark(samples),
        }

    def load_state_dict(self, obj: dict[str, Any] | None) -> None:
        """Resume from a state of this class or of plain Streaming at the next iteration.

        Streaming ignores the state of an epoch before the current one. This returns to it.

        Raises:
            ValueError: The position has another version, or the state is within an epoch of the
                other order.
        """
        if obj is None:
            return  # the saved run's data set had no state
        text = obj.get("attent")
        if text and text != LAZY:
            check_same_kind(Position.load(text).identity.get("order kind") or STREAMING, self.order)
        elif obj["epoch"] >= 0 and obj["sample_in_epoch"]:
            check_same_kind(text or STREAMING, self.order)
        elif "attent" not in obj and obj["sample_in_epoch"] == 0:
            # Plain Streaming saves the epoch that it has finished.
            obj = {**obj, "epoch": obj["epoch"] + 1}
        self._load_plain(obj)
        self._loaded = dict(obj)

    def continue_epoch(self, num_samples: int) -> None:
        """Resume the current epoch after this many samples, for another fit in this process."""
        self.load_state_dict(self.state_dict(num_samples, True))

    def start_at(self, epoch: int, num_samples: int) -> None:
        """Resume an epoch after this many samples of its order, as after a plain run."""
        self.next_epoch = epoch
        state = self.state_dict(num_samples, True)
        mark = self._order_mark(num_samples)
        self.load_state_dict({**state, "epoch": epoch, "attent": mark})

    def return_to_loaded(self, num_samples: int) -> bool:
        """Resume from the state that was loaded last, even if it has been iterated from since.

        A look at some batches before a fit uses up a loaded state, but the fit must still resume
        from it.

        Args:
            num_samples: Samples of the epoch that the run has trained on.

        Returns:
            Whether there is such a state with the same number of samples.
        """
        if self._loaded is None or self._loaded["sample_in_epoch"] != num_samples:
            return False
        self._load_plain(self._loaded)
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Return what a spawned worker gets."""
        return {**super().__getstate__(), "_taught": None}

    def _load_plain(self, obj: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in obj.items() if key != "attent"})
        self.next_epoch = obj["epoch"]

    def _order_mark(self, samples: int) -> str:
        return LAZY if samples and self.order == LAZY else ""

    @property
    def _default_canonical_nodes(self) -> int:
        """The value that Streaming sets in the iterating processes when a first epoch begins."""
        nodes = self._parallel_rank_world.num_nodes
        return 64 * nodes if self.shuffle_algo in ("py1s", "py2s") else nodes
