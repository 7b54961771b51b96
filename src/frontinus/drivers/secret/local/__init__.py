"""Secrets kept by this installation itself: bundle.py reads what people bring, driver.py keeps it encrypted."""
