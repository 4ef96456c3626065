"""How the models that ship were made: rows, labels, networks, cards (extra `[train]`)."""
