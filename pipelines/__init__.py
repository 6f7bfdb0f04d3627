"""Tables, derivation and training sets: from the archive to Parquet."""
