"""The `hauberk` command: one file per verb, and what they share.

- `main`           the group of all verbs; the one place where an error becomes a line and an exit code (0, 1, 2)
- `verb`           a command with examples in its help
- `options`        what several verbs take: where the control plane answers, namespace, kind, duration, output format
- `client`         calls to the control plane over its unix socket; the only file here that imports grpc
- `output`         tables, JSON and YAML; nothing that came over the wire reaches a terminal unescaped
- `files`          what `-f` names: files, directories, standard input
- `propagation`    what `--wait` found

Verbs: `control-plane` (serve_control_plane), `sidecar` (serve_sidecar), `run`, `token` (tokens), `apply`, `get`,
`delete`, `explain`, `status`, and `demo`.

Start-up is what a user feels, so a verb imports what it needs inside its function: `hauberk --help` loads click only.
"""
