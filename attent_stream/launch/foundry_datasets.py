"""llm-foundry's data sets, taught. Importing this module imports llm-foundry.

They are defined at module level so that spawned loader workers can unpickle them.
"""

from typing import Any

from llmfoundry.data.finetuning.tasks import StreamingFinetuningDataset
from llmfoundry.data.text_data import StreamingTextDataset

from attent_stream.data.dataset import TeachingDataset
from attent_stream.launch.foundry_turns import labels_are_aligned, turns_of


class TeachingTextDataset(TeachingDataset, StreamingTextDataset):
    """A ``StreamingTextDataset`` whose samples a teacher chooses."""


class TeachingFinetuningDataset(TeachingDataset, StreamingFinetuningDataset):
    """A ``StreamingFinetuningDataset`` whose samples a teacher chooses.

    It also reads what ``attent-stream corpus chat`` writes, whose labels stand beside their tokens.
    """

    def __getitem__(self, at: Any) -> Any:
        sample = super().__getitem__(at)
        turns = sample["turns"] if isinstance(sample, dict) else []
        if len(turns) == 1 and {"input_ids", "labels"} <= turns[0].keys():
            ids, labels = turns[0]["input_ids"], turns[0]["labels"]
            if labels_are_aligned(labels):
                sample["turns"] = turns_of(ids, labels)
        return sample

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """As llm-foundry's: rows that are packed from several samples count as so many."""
        return super().state_dict(self._samples_of(num_samples), from_beginning)

    def return_to_loaded(self, num_samples: int) -> bool:
        """As ``TeachingDataset``'s, of rows."""
        return super().return_to_loaded(self._samples_of(num_samples))

    def _samples_of(self, rows: int) -> int:
        return int(rows * (self.packing_ratio or 1))
