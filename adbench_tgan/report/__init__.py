"""The offline HTML page: tables, charts and examples of one dataset under one protocol, in a single file."""
