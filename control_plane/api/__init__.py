"""The gRPC services, without gRPC.

- `authz`      who may call what: a table
- `callers`    whom a connection's certificate proves
- `identity`   Join, Renew
- `discovery`  Watch
- `config`     Apply, Get, List, Delete
- `explain`    Explain: `questions` reads what is asked, `answers` writes what is answered
- `admin`      CreateToken, ListTokens, Status
- `server`     the only one that knows gRPC: ports, credentials, messages in and out, errors to statuses
- `credentials`  the control plane's own certificate, renewed while it serves

Handlers are plain functions of (Caller, request message); what they raise is a `control_plane.errors` class.
"""
