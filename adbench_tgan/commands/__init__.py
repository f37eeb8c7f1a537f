"""The commands of ``adbench``, a file for each noun. Thin: what they do is elsewhere, and imported when it is used."""
