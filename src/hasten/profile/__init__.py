"""Where the time of a prediction goes: times of operators, held against what the machine can do at most.

subject     what a user names, as a model file, a target and samples
ceilings    what the machine can do at most: arithmetic, and memory traffic by size of the data
owners      which nodes of the model an executed operator stands for (pure)
roofline    an operator's work against the ceilings: its share of them and what bounds it (pure)
rounds      the engine's profiler, the model without it, and the ceilings, measured in turn
advice      which techniques of hasten address a bottleneck
run         all of it together
trace       a profile as a trace that Perfetto opens (pure)
"""
