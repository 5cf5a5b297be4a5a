"""The runs of a data folder: their files, their locks and their processes."""
