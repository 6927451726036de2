"""Who gains and who loses what by a change of policy, found before the change is made.

- `compute`    the public part: callers and called workloads in, lines for people out
- `side`       one workload's snapshot before or after: its rules as conditions, and its verdict on one request
- `axes`       the attributes those rules look at, each cut into classes of values that no rule tells apart
- `witnesses`  values that match a pattern, and values that just do not
- `words`      sets of classes as text: "GET, POST /orders/* (not /orders/admin)"

Nothing is derived by reasoning about rules alone: a line is written only if both evaluators were asked about a request
it stands for (a witness), and answered differently.
"""
