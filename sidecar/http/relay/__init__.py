"""Our own HTTP/2: what `sidecar.http.session` asks for; docs/performance.md says what it costs.

    faults         what ends a stream, and what ends the connection
    streams        the states of a stream, and what a frame means in the wrong one: two tables
    huffman        RFC 7541 Appendix B as an automaton that takes whole octets
    hpack_table    the static and the dynamic table
    hpack_decode   header block -> fields
    hpack_encode   fields -> header block
    errors         what a header block can do wrong
    core           what both directions share: the streams, what waits to be sent, the end
    send           calls -> frames -> bytes
    control        the frames that carry no part of a message
    session        bytes -> frames -> sinks: the frame lane, and the whole session

Read `session` first. Its oracle is `sidecar.http.reference`: both run the same contract suite, and differential tests
compare them frame by frame.
"""

from sidecar.http.relay.session import RelaySession

__all__ = ["RelaySession"]
