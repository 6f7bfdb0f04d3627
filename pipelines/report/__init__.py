"""Pages to look at: the report about a whole lake, and one session with its reasoning graph."""
