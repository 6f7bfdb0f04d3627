"""Commands of the live side and the archive, a module each; :mod:`pipelines.cli` lists them."""
