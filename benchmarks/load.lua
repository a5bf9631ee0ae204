-- For wrk: asks for pictures of ever new seeds, the classes in turn, and prints one line of JSON at the end.
-- Arguments: wire ("json" or "tensor"), number of classes, salt (below 18446744072, another one for each run).
local ffi = require("ffi")

local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(arguments)
  wire, classes, salt = arguments[1], tonumber(arguments[2]), tonumber(arguments[3])
  asked = 0
  wrk.method = "POST"
  if wire == "json" then
    wrk.headers["Content-Type"] = "application/json"
  else
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.headers["Inference-Header-Content-Length"] = "0"
  end
end

-- A thread's connections share its counter, so no seed is asked for twice: salt * 10^9 + thread * 10^8 + counter,
-- which is below 2^64. A Lua number holds no integer of that size: text is pasted together, bytes are made by C.
function request()
  local low = number * 100000000 + asked
  local class = asked % classes
  asked = asked + 1
  if wire == "json" then
    return wrk.format(nil, nil, nil, string.format('{"seed": %.0f%09d, "class": %d}', salt, low, class))
  end
  local tensor = ffi.new("uint64_t[2]", ffi.cast("uint64_t", salt) * 1000000000ULL + low, class)
  return wrk.format(nil, nil, nil, ffi.string(tensor, 16))
end

-- `errors.status` counts answers of 400 and more. Looking at every answer here would cost the load generator CPU
-- that the servers need; that the others are the right pictures is checked before.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"answers": %d, "seconds": %.6f, "bytes": %d, "p50_ms": %.4f, "p99_ms": %.4f, "refused": %d, "lost": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
