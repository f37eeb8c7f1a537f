"""What a table is made of: which results, how sure their means are, and what papers print."""
