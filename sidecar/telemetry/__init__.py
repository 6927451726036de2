"""What the sidecar tells the outside about itself. Nothing here is waited for by a request.

names       every metric, label, log field and span attribute, in one place
metrics     plain counts on the hot path, made into samples when somebody scrapes
exposition  samples as Prometheus text
access_log  one JSON line per exchange, through a bounded queue that drops and counts rather than wait
trace       W3C trace context (parse, continue, begin) and OTLP spans for the requests that are sampled
logs        the process's own log: one JSON line a message, text on a terminal
sink        writing to standard error without ever blocking the loop
"""
