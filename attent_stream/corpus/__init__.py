"""Write text and images as MDS shards.

The collators in `attent_stream.corpus.batches` are not exported here because they import torch.
"""

from attent_stream.corpus.chat import write_chat_corpus
from attent_stream.corpus.errors import CorpusError
from attent_stream.corpus.images import write_image_corpus
from attent_stream.corpus.manifest import BadRecords, Manifest, Part
from attent_stream.corpus.settings import (
    ChatCorpusSettings,
    ImageCorpusSettings,
    TextCorpusSettings,
)
from attent_stream.corpus.sources import Source, sources_from
from attent_stream.corpus.text import write_text_corpus

__all__ = [
    "BadRecords",
    "ChatCorpusSettings",
    "CorpusError",
    "ImageCorpusSettings",
    "Manifest",
    "Part",
    "Source",
    "TextCorpusSettings",
    "sources_from",
    "write_chat_corpus",
    "write_image_corpus",
    "write_text_corpus",
]
