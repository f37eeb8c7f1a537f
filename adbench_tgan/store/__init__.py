"""Where results are kept: what a store's folders hold, and how several runs read and write one store."""
