"""Candidates are scored by what workers made of them, with the stream counted until the last
choice.
"""

import numpy as np
from fits import BATCH, fit, make_loader
from streaming import StreamingDataset
from target_corpora import mixed, write_kinds

from attent_stream import AtteNT
from attent_stream.base.gather import ALONE
from attent_stream.corpus.batches import TokenCollator
from attent_stream.score.ngrams import ngram_counts, ngram_ids
from attent_stream.score.resemblance import Resemblance
from attent_stream.window.metrics import choice_metrics


def test_scores_are_those_of_all_windows_before(tmp_path, monkeypatch):
    made = []

    def kept(choice, stream_starts):
        made.append(choice)
        return choice_metrics(choice, stream_starts)

    monkeypatch.setattr("attent_stream.fit.teaching.choice_metrics", kept)
    stream = write_kinds(tmp_path / "stream", mixed(160))
    target = write_kinds(tmp_path / "target", "h" * 40, seed=5)
    loader = make_loader(stream)
    fit(loader, [AtteNT(target=target, arrange="none")])
    rows, collate = loader.dataset, TokenCollator()

    def views(ids):
        return ngram_ids(collate([rows[int(one)] for one in np.ravel(ids)]))

    wanted = [i for i in range(40) if i % 10 != 9]
    good = StreamingDataset(local=target, batch_size=1, shuffle=False)
    counts = ngram_counts(ngram_ids(collate([good[i] for i in wanted])))
    likeness = Resemblance([counts], [1.0], ALONE)
    assert len(made) == 10 and made[0].window.ids.shape == (4, BATCH)
    # The first window is read and counted before anything is trained on.
    likeness.count(views(made[0].window.ids))
    for index, choice in enumerate(made):
        likeness.advance()
        expected = likeness.scores(views(choice.window.ids)).reshape(choice.scores.shape)
        np.testing.assert_array_equal(choice.scores.astype(np.float32), expected)
        if index:
            likeness.count(views(choice.window.ids))
