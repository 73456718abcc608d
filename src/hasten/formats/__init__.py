"""Checked readers of file formats, for whoever opens models and for the engines that load them."""
