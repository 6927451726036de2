"""I/O: the only part of the data path that touches sockets.

listener    bind everything first; accept, and outlive a shortage of descriptors
tls         contexts from memory, handshakes, and who the peer proved to be
preamble    what a plaintext connection begins with
reactor     one epoll and one task for all sockets: rounds of callbacks, none of which owns the loop
connection  the pump between one socket and one session; the Driver that flushes what was touched
pool        connections to one upstream: who gets one, who waits, what is dialled
upstream    opening connections to other sidecars and to the app
dial        one plain connection
backoff     how long to wait before trying again
errors      what can go wrong with TLS
"""
