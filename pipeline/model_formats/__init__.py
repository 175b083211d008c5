"""The formats of modules: a SavedModel, an ONNX file, OpenVINO's IR."""
