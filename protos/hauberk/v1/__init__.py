"""Generated code of `hauberk.v1`, beside its .proto files. Never edited by hand: `make protos`."""
