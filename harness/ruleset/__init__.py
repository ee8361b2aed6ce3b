"""The user's ruleset: loaded as ``nft -f`` would, each rule known by handle and by file and line."""
