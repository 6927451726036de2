"""Ways to deploy Hauberk. So far: `examples/`, the services and policies that `hauberk demo` runs."""
