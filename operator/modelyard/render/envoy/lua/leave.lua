-- Answers /leave when this Envoy may end: what its requests used is written in the ledger. It is the pod's preStop hook,
-- so the pod gets SIGTERM then. SERVES_ON and PATIENCE, in seconds, stand before this text.

-- Milliseconds. The operator takes three of its read intervals for an answer, which are 60 s at most; that it is gone is
-- known from the connection. The admin interface answers at once.
local ASK_LIMIT, CALL_LIMIT = 300000, 5000

local char, floor, match = string.char, math.floor, string.match

local function call(handle, cluster, method, path, limit)
  local request = { [':method'] = method, [':path'] = path, [':authority'] = cluster }
  local headers, body = handle:httpCall(cluster, request, nil, limit)
  return headers[':status'] == '200' and (body or '') or nil
end

-- A script cannot wait by itself, so it calls a path that is delayed by a second.
local function pause(handle)
  call(handle, 'pause', 'GET', '/pause', CALL_LIMIT)
end

-- Requests under way, and those that were ever sent on. Neither is there before the first.
local function traffic(handle)
  local path = '/stats?filter=http.gateway.(downstream_rq_active|rq_total)$'
  local text = call(handle, 'admin', 'GET', path, CALL_LIMIT) or ''
  return tonumber(match(text, 'downstream_rq_active: (%d+)') or 0), tonumber(match(text, 'rq_total: (%d+)') or 0)
end

-- What the operator says of this Envoy: 'yes' or 'no', or nil if it does not answer. The call is gRPC's: one message,
-- behind its length (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
local function ask(handle, question, node)
  local size = #node
  local frame = char(0, 0, 0, floor(size / 256), size % 256) .. node
  local request = {
    [':method'] = 'POST',
    [':path'] = '/modelyard.gateway.v1.Departures/' .. question,
    [':authority'] = 'control_plane',
    ['content-type'] = 'application/grpc',
    ['te'] = 'trailers',
  }
  local headers, body = handle:httpCall('control_plane', request, frame, ASK_LIMIT)
  if headers[':status'] ~= '200' or not body then return nil end
  return match(body, 'yes$') or match(body, 'no$')
end

function envoy_on_request(handle)
  if handle:headers():get(':path') ~= '/leave' then return end
  local info = call(handle, 'admin', 'GET', '/server_info', CALL_LIMIT) or ''
  local node = match(info, '"node"%s*:%s*{%s*"id"%s*:%s*"([^"]*)"') or ''
  local began, heard, leaving = os.time(), os.time(), nil
  -- New requests may come until everybody knows that the pod leaves.
  repeat
    if not leaving then
      leaving = ask(handle, 'Leaving', node)
      if leaving then heard = os.time() end
      -- Clients are told to connect elsewhere. Only the operator can say that it is time: anybody may ask this path.
      if leaving == 'yes' then call(handle, 'admin', 'POST', '/healthcheck/fail', CALL_LIMIT) end
    end
    pause(handle)
  until os.time() - began >= SERVES_ON
  local settled
  while true do
    local active, total = traffic(handle)
    if active > 0 then
      settled, heard = nil, os.time()
      pause(handle)
    elseif settled == total then
      break
    else
      local answer = ask(handle, 'Settle', node)
      if answer then heard = os.time() end
      if answer == 'yes' then
        settled = total
      else
        if os.time() - heard >= PATIENCE then break end
        pause(handle)
      end
    end
  end
  handle:respond({ [':status'] = '200' }, settled and 'settled\n' or 'the operator does not answer\n')
end
