"""llm-foundry's text dataset, taught. Importing this module imports llm-foundry."""

from llmfoundry.data.text_data import StreamingTextDataset

from attent_stream.data.dataset import TeachingDataset


class TeachingTextDataset(TeachingDataset, StreamingTextDataset):
    """A ``StreamingTextDataset`` whose samples a teacher chooses.

    Defined at module level so that spawned loader workers can unpickle it.
    """
