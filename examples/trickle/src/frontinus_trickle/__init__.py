"""An amphora driver that is no part of Frontinus: the example of docs/drivers.md. Start reading at driver.py."""

__version__ = "1.0.0"
