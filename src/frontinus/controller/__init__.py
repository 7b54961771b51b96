"""The brain: claim, observe, plan (pure), act through a driver, record.

Imports model, store and the driver interfaces; never a driver itself, never api or health. Open reconcile.py first."""
