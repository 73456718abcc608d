"""Optimize: plan candidates, try each, pick on tuning data, claim on holdout data, pack the bundle."""
