"""Statistics worth trusting: percentiles, paired ratios and paired changes, each with a 95 % interval that was
calibrated.

Used by meters, verdicts, reports and gates. Knows numbers only: no engines, no files, no clocks.
"""
