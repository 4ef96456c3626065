"""What we build, offline, from an ONNX model: checks, tick-split, precision, engines, bundles.

Knows of features only the schema hash. Nothing here runs in the hot loop.
"""
