"""The helper package of the notebooks. A room is a folder; imports run down only:

predict
systems
evaluation explanation
training figures
corpora
features
workspace
profiles
names locks progress tables
"""
