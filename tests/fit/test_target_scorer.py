"""Candidates are scored by what workers made of them, with the stream counted until the last
choice.
"""

import numpy as np
from fits import BATCH, fit, make_loader
from target_corpora import mixed, write_kinds

from attent_stream import AtteNT
from attent_stream.base.gather import ALONE
from attent_stream.corpus.batches import TokenCollator
from attent_stream.score.ngrams import ngram_counts, ngram_ids
from attent_stream.score.resemblance import Resemblance


class Choices(AtteNT):
    """Keeps all choices."""

    def apply(self, event, state, logger):
        super().apply(event, state, logger)
        choice = self.last_choice
        if choice is not None and (not self.made or self.made[-1] is not choice):
            self.made.append(choice)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.made = []


def test_scores_are_those_of_all_windows_before(tmp_path):
    stream = write_kinds(tmp_path / "stream", mixed(160))
    target = write_kinds(tmp_path / "target", "h" * 40, seed=5)
    loader = make_loader(stream)
    algorithm = Choices(target=target, arrange="none")
    fit(loader, [algorithm])
    rows, collate = loader.dataset, TokenCollator()

    def views(ids):
        return ngram_ids(collate([rows[int(one)] for one in np.ravel(ids)]))

    wanted = [i for i in range(40) if i % 10 != 9]
    from streaming import StreamingDataset

    good = StreamingDataset(local=target, batch_size=1, shuffle=False)
    counts = ngram_counts(ngram_ids(collate([good[i] for i in wanted])))
    likeness = Resemblance([counts], [1.0], ALONE)
    first, *others = algorithm.made
    assert first.scores is None and len(others) == 9 and others[0].window.ids.shape == (4, BATCH)
    likeness.count(views(first.window.ids))
    for choice in others:
        likeness.advance()
        expected = likeness.scores(views(choice.window.ids)).reshape(choice.scores.shape)
        np.testing.assert_array_equal(choice.scores.astype(np.float32), expected)
        likeness.count(views(choice.window.ids))
