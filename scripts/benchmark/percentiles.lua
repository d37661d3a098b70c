-- What wrk measured, as one line of JSON behind what it prints for people.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"microseconds":%.0f,"requests":%.0f,"bytes":%.0f,"p50":%.0f,"p99":%.0f,' ..
      '"errors":{"connect":%.0f,"read":%.0f,"write":%.0f,"timeout":%.0f,"status":%.0f}}\n',
    summary.duration, summary.requests, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
