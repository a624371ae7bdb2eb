"""What `hyocr verify` does: hold a quantized checkpoint, by hyocr or another tool, against what its readers expect.

`subject` opens a checkpoint and sorts its tensors; `names`, `values`, `record` and `original` are checks that yield
faults; `load` lets a runtime read with it.
"""
