"""``make demo``: a corpus, its arms, and what came of them as a table and a picture."""
