"""HTTP without I/O: bytes in, calls to a sink; calls in, bytes out. No sockets, no randomness; time is an argument.

Read in this order:

* `session`      the interface of every engine, and what each must do
* `headers`      what may cross: the one judge of request heads, response heads and trailers
* `fields`       what every field section must be (names, values, identity fields)
* `layout`       what the names of a section decide, once for each sequence of names; its size
* `body_length`  whether a body is as long as its head said
* `authority`    `host[:port]`, read once, in one spelling
* `tunnel`       CONNECT, by which an app names a service of the mesh
* `frames`       kinds, flags and settings of HTTP/2, and how a frame is written
* `budgets`      how much of what is worth nothing an HTTP/2 connection may send
* `engines`      the two HTTP/2 engines by their names in the configuration; nothing else knows which there are
* `relay`        the default one, our own: a package with a map of its own
* `reference`    HTTP/2 on the `h2` package, the oracle of the other; it stands on
    * `reference_core`  what is said, and how a connection ends
    * `gate`            bytes into frames; what a frame's kind alone tells against it
    * `h2_connection`   `h2` as it is wanted here
* `http1`        HTTP/1.1 and 1.0, server and client; it stands on
    * `http1_core`   what both roles share: the buffer, the crank, the output and its bound
    * `http1_head`   heads as received: the strict look, then httptools; framing; hop-by-hop fields
    * `http1_body`   bodies as received: by length, chunked, until close
    * `http1_write`  heads as sent, and the fixed answers to what is no HTTP

A head is translated by its session, judged by `headers`, and what `headers` returns is what is sent on.
"""
