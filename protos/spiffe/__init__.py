"""The SPIFFE Workload API, as its specification fixes it; the generated code is made by `make protos`, not by hand."""
