"""Raw bytes at the ends of a fixed model: what ``base.contract`` says becomes operators."""
