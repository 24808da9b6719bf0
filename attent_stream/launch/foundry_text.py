"""``TeachingTextDataset``: llm-foundry's text data set, taught. Importing this imports
llm-foundry.
"""

from llmfoundry.data.text_data import StreamingTextDataset

from attent_stream.data.dataset import TeachingDataset


class TeachingTextDataset(TeachingDataset, StreamingTextDataset):
    """``StreamingTextDataset`` whose samples a teacher may choose: ``tokens`` read (or ``text``
    tokenized) and cut to ``max_seq_len`` as llm-foundry does it.

    A class of a module, not of a function, so that spawned loader workers can have it.
    """
