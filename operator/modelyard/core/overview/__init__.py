"""The whole installation in one look, trouble first: what `modelyard status` and the web page show."""
